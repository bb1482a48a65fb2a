#include "shrike/detection/boxes.hpp"

namespace shrike {

void check_boxes(const char* what, const Tensor& boxes, Device device) {
  SHRIKE_CHECK(boxes.rank() == 2 && boxes.size(1) == 4, what, ": shape ", boxes.shape(), ", expected [N, 4]");
  SHRIKE_CHECK(boxes.dtype() == Dtype::f32, what, ": dtype ", name(boxes.dtype()), ", expected f32");
  SHRIKE_CHECK(boxes.device() == device, what, ": on ", name(boxes.device()), ", expected ", name(device));
}

Tensor encode_boxes(const Tensor& boxes, const Tensor& references, const BoxWeights& weights) {
  check_boxes("encode_boxes: boxes", boxes, references.device());
  check_boxes("encode_boxes: references", references, references.device());
  SHRIKE_CHECK(boxes.shape() == references.shape(), "encode_boxes: boxes ", boxes.shape(), " and references ",
               references.shape(), " differ in number");
  const Tensor deltas(boxes.shape(), Dtype::f32, boxes.device());
  dispatch(boxes.device(), [&](auto d) {
    kernels::encode_boxes(d, boxes.size(0), weights, boxes.data<float>(), references.data<float>(), deltas.data<float>());
  });
  return deltas;
}

Tensor decode_boxes(const Tensor& deltas, const Tensor& references, const BoxWeights& weights) {
  check_boxes("decode_boxes: references", references, references.device());
  SHRIKE_CHECK(deltas.rank() == 2 && deltas.size(0) == references.size(0) && deltas.size(1) > 0 && deltas.size(1) % 4 == 0,
               "decode_boxes: offsets ", deltas.shape(), " for references ", references.shape(), ", expected [",
               references.size(0), ", 4 C]");
  SHRIKE_CHECK(deltas.device() == references.device(), "decode_boxes: offsets on ", name(deltas.device()), ", references on ",
               name(references.device()));
  const Tensor boxes(deltas.shape(), Dtype::f32, deltas.device());
  const kernels::DecodeSizes sizes{deltas.size(0), deltas.size(1) / 4, weights};
  dispatch(boxes.device(), [&](auto d) {
    kernels::decode_boxes(d, sizes, deltas.data<float>(), references.data<float>(), boxes.data<float>());
  });
  return boxes;
}

Tensor clip_boxes(const Tensor& boxes, std::int64_t image_height, std::int64_t image_width) {
  SHRIKE_CHECK(boxes.rank() > 0 && boxes.size(-1) == 4, "clip_boxes: shape ", boxes.shape(), ", expected [..., 4]");
  SHRIKE_CHECK(image_height >= 0 && image_width >= 0, "clip_boxes: an image of ", image_height, " x ", image_width, " pixels");
  const Tensor clipped(boxes.shape(), Dtype::f32, boxes.device());
  dispatch(boxes.device(), [&](auto d) {
    kernels::clip_boxes(d, boxes.numel() / 4, static_cast<float>(image_height), static_cast<float>(image_width),
                        boxes.data<float>(), clipped.data<float>());
  });
  return clipped;
}

Tensor box_tensor(const std::vector<Object>& objects, Device device) {
  std::vector<float> values;
  values.reserve(4 * objects.size());
  for (const Object& object : objects) {
    values.insert(values.end(), {object.box.x1, object.box.y1, object.box.x2, object.box.y2});
  }
  return tensor({static_cast<std::int64_t>(objects.size()), 4}, values, device);
}

Tensor label_tensor(const std::vector<Object>& objects, Device device) {
  std::vector<std::int32_t> values;
  values.reserve(objects.size());
  for (const Object& object : objects) values.push_back(object.label);
  return tensor({static_cast<std::int64_t>(objects.size())}, values, device);
}

}  // namespace shrike
