// Uses the library as its user would: an operation, a gradient, a file.
#include <cstdio>

#include "shrike/io/safetensors.hpp"
#include "shrike/ops/elementwise.hpp"

int main(int argc, char** argv) {
  using namespace shrike;
  const char* path = argc > 1 ? argv[1] : "consumer.safetensors";
  const Tensor x = tensor<float>({3}, {-1.0f, 0.5f, 2.0f});
  x.set_requires_grad(true);
  backward({relu(x)}, {full({3}, 1.0f)});
  TensorFile file;
  file.tensors["gradient"] = x.grad();
  save_safetensors(path, file);
  const Tensor gradient = load_safetensors(path).tensors.at("gradient");
  std::printf("gradient of relu: %g %g %g\n", gradient.data<float>()[0], gradient.data<float>()[1], gradient.data<float>()[2]);
  return gradient.to_vector<float>() == std::vector<float>{0.0f, 1.0f, 1.0f} ? 0 : 1;
}
