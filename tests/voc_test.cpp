#include "shrike/data/voc.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <tuple>

#include "catch.hpp"
#include "error_of.hpp"
#include "shrike/core/check.hpp"
#include "shrike/data/image_size.hpp"
#include "voc_folder.hpp"

using namespace shrike;
namespace fs = std::filesystem;

namespace {

const std::string good = voc_object("cat", "1", "2", "10", "8");

std::string parse_error(const std::string& xml) {
  return error_of([&] { parse_voc_annotation(xml, "a.xml"); });
}

void check_has(const std::string& text, std::initializer_list<const char*> pieces) {
  for (const char* piece : pieces) {
    INFO("in: " << text << "\nexpected: " << piece);
    CHECK(text.find(piece) != std::string::npos);
  }
}

// A folder of one image of 20x10 with these objects; the error of reading it.
std::string folder_error(const std::string& objects, const std::vector<std::string>& classes = {}) {
  const VocFolder folder;
  folder.add("a", 20, 10, objects);
  folder.list("train", "a\n");
  return error_of([&] { read_voc(folder.root(), "train", classes); });
}

}  // namespace

TEST_CASE("corners become 0-based and continuous, fractions allowed") {
  const VocFolder folder;
  folder.add("a", 20, 10,
             voc_object("dog", "1", "1", "20", "10", "<difficult>1</difficult>") +
                 voc_object("cat", " 2.5 ", "3", "7.25", "1e1",
                            "<difficult>0</difficult><part><name>head</name><bndbox><xmin>nan"
                            "</xmin></bndbox></part>"));
  folder.list("train", "a\n");
  VocReport report;
  const Dataset data = read_voc(folder.root(), "train", {}, {}, &report);
  CHECK(data.classes == std::vector<std::string>{"cat", "dog"});
  REQUIRE(data.samples.size() == 1);
  const Sample& sample = data.samples[0];
  CHECK(sample.id == "a");
  CHECK(sample.width == 20);
  CHECK(sample.height == 10);
  CHECK(fs::path(sample.image_path).filename() == "a.png");
  REQUIRE(sample.objects.size() == 2);
  CHECK(sample.objects[0].box == Box{0, 0, 20, 10});
  CHECK(sample.objects[0].label == 2);
  CHECK(sample.objects[0].difficult);
  CHECK(sample.objects[1].box == Box{1.5f, 2, 7.25f, 10});
  CHECK(sample.objects[1].label == 1);
  CHECK_FALSE(sample.objects[1].difficult);
  CHECK(report.clipped == 0);
  CHECK(report.difficult == 1);
}

TEST_CASE("images without objects, all image extensions, several splits, blank lines and CRLF") {
  const VocFolder folder;
  folder.add("a b", 8, 8, "", ".jpg");
  folder.add("c", 9, 7, good, ".jpeg");
  folder.add("d.e", 9, 7, good);
  fs::rename(folder / "JPEGImages/d.e.png", folder / "JPEGImages/d.e.PNG");
  folder.list("train",
              "\xef\xbb\xbf"
              "a b\r\n\r\nc  \r\n");
  folder.list("val", "\n  d.e");
  VocReport report;
  const Dataset data = read_voc(folder.root(), "train+val", {"dog", "cat"}, {}, &report);
  REQUIRE(data.samples.size() == 3);
  CHECK(data.samples[0].objects.empty());
  CHECK(data.samples[1].objects[0].label == 2);
  CHECK(data.samples[2].id == "d.e");
  CHECK(report.images == 3);
  CHECK(report.empty_images == 1);
  CHECK(report.objects == 2);
  CHECK(report.classes[0].objects == 0);
  CHECK(report.classes[1].images == 2);
  check_has(to_string(report), {"3 images (1 without objects), 2 objects", "cat", "dog"});
}

TEST_CASE("VOCdevkit folders are chosen by year") {
  const VocFolder folder;
  const auto add = [&](const std::string& year, const std::string& id) {
    const std::string at = folder / ("VOC" + year + "/");
    write_text(at + "Annotations/" + id + ".xml", voc_xml(4, 4, ""));
    write_text(at + "ImageSets/Main/trainval.txt", id + "\n");
    fs::create_directories(at + "JPEGImages");
    write_image(at + "JPEGImages/" + id + ".png", make_image(4, 4));
  };
  add("2007", "000001");
  CHECK(read_voc(folder.root(), "trainval").samples.size() == 1);
  CHECK(read_voc(folder / "VOC2007", "trainval").samples.size() == 1);
  add("2012", "2008_000001");
  VocOptions options;
  options.years = "2007+2012";
  const Dataset both = read_voc(folder.root(), "trainval", voc_classes(), options);
  REQUIRE(both.samples.size() == 2);
  CHECK(both.samples[1].id == "2008_000001");
  CHECK(both.classes.size() == 20);
  check_has(error_of([&] { read_voc(folder.root(), "trainval"); }), {"VOC2007, VOC2012", "choose"});
  options.years = "2007+2010";
  check_has(error_of([&] { read_voc(folder.root(), "trainval", {}, options); }), {"VOC2010", "VOC2007, VOC2012"});
  check_has(error_of([&] { read_voc(folder / "VOC2007/Annotations", "trainval"); }), {"not a VOC folder"});
  check_has(error_of([&] { read_voc(folder / "none", "trainval"); }), {"none", "no such folder"});
}

TEST_CASE("XML that is not an annotation") {
  check_has(parse_error(""), {"a.xml", "empty"});
  check_has(parse_error(" \n\t"), {"a.xml", "empty"});
  check_has(parse_error("hello"), {"a.xml", "not well-formed"});
  check_has(parse_error("<annotation>\n<size>\n<width>3</width></annotation>"), {"a.xml:3", "not well-formed"});
  check_has(parse_error("<annotation><a b=c></annotation>"), {"a.xml:1", "not well-formed"});
  check_has(parse_error("<html></html>"), {"no <annotation>", "<html>"});
  check_has(parse_error(std::string("<annotation>\0</annotation>", 26)), {"zero byte"});
  check_has(parse_error("<!DOCTYPE a [<!ENTITY b \"c\">]><annotation/>"), {"a.xml:1", "DOCTYPE"});
  // Every way to cut a good file short.
  const std::string whole = "<?xml version=\"1.0\"?><!-- a --><annotation x='>'><![CDATA[<]]>" + good + "</annotation>";
  CHECK(parse_voc_annotation(whole, "a.xml").objects.size() == 1);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO(length);
    CHECK(parse_error(whole.substr(0, length)).starts_with("a.xml"));
  }
  CHECK(parse_voc_annotation("<annotation>&undefined;" + good + "</annotation>", "a.xml").objects[0].name == "cat");
}

TEST_CASE("XML that is too deep or too large") {
  std::string deep = "<annotation>";
  for (int i = 0; i < 200'000; ++i) deep += "<a>";
  check_has(parse_error(deep), {"a.xml:1", "deeper than 64"});
  for (int i = 0; i < 200'000; ++i) deep += "</a>";
  check_has(parse_error(deep + "</annotation>"), {"deeper than 64"});
  // Closing tags that are not tags do not hide the depth.
  for (const char* hidden : {"<a><!--</a></a>-->", "<a><![CDATA[</a>]]>", "<a x='</a>/>'>", "<a><?p </a>?>", "<a x=\"/\">"}) {
    std::string text = "<annotation>";
    for (int i = 0; i < 1000; ++i) text += hidden;
    INFO(hidden);
    check_has(parse_error(text), {"deeper than 64"});
  }
  std::string wide = "<annotation>";
  for (int i = 0; i < 50'000; ++i) wide += "<a x='/'/><b></b>";
  CHECK(parse_voc_annotation(wide + "</annotation>", "a.xml").objects.empty());

  const VocFolder folder;
  folder.add("a", 20, 10, std::string(5 << 20, ' '));
  folder.list("train", "a");
  check_has(error_of([&] { read_voc(folder.root(), "train"); }), {"a.xml", "4194304"});
  check_has(parse_error(std::string(5 << 20, ' ')), {"5242880 bytes", "at most 4194304"});
}

TEST_CASE("sizes that are not sizes") {
  for (const char* width : {"0", "-1", "x", "", "1.5", "65536", "nan", "1e30"}) {
    INFO(width);
    check_has(
        parse_error("<annotation>\n<size><width>" + std::string(width) + "</width><height>2</height></size></annotation>"),
        {"a.xml:2", "width", width, "expected 1 to 65535"});
  }
  check_has(parse_error("<annotation><size><width>3</width></size></annotation>"), {"height is ''"});
  CHECK(parse_voc_annotation("<annotation/>", "a.xml").height == 0);
}

TEST_CASE("objects without a name, or with an odd difficult") {
  check_has(parse_error("<annotation>\n" + good + "<object><bndbox/></object></annotation>"),
            {"a.xml:3", "object 2", "no name"});
  check_has(parse_error(voc_xml(5, 5, voc_object("cat", "1", "1", "2", "2", "<difficult>yes</difficult>"))),
            {"object 1 (cat)", "difficult is 'yes'"});
  check_has(parse_error(voc_xml(5, 5, voc_object("c\nat", "1", "1", "2", "2"))), {"'c at'", "control"});
}

TEST_CASE("bad boxes are named, or dropped and counted") {
  struct Case {
    const char *x1, *y1, *x2, *y2;
    std::vector<const char*> pieces;
  };
  const std::vector<Case> cases = {
      {"nan", "1", "5", "5", {"(nan, 1, 5, 5)", "not finite"}},
      {"1", "-inf", "5", "5", {"ymin", "not finite"}},
      {"1", "1", "1e30", "5", {"xmax", "too far out"}},
      {"1", "1", "1e999", "5", {"xmax", "not a number"}},
      {"1", "1", "five", "5", {"(1, 1, five, 5)", "xmax is not a number"}},
      {"1", "1", "5px", "5", {"xmax is not a number"}},
      {"1", "", "5", "5", {"ymin is missing"}},
      {"5", "1", "2", "5", {"(5, 1, 2, 5)", "inverted", "xmin < xmax"}},
      {"1", "5", "5", "1", {"inverted"}},
      {"5", "5", "5", "5", {"(5, 5, 5, 5)", "no area"}},
      {"1", "5", "9", "5", {"no area"}},
      {"30", "1", "40", "5", {"outside the image of 20x10"}},
      {"-30", "1", "0", "5", {"outside the image"}},
      {"1", "11", "5", "15", {"outside the image"}},
  };
  std::string all;
  for (const Case& c : cases) {
    const std::string bad = voc_object("cat", c.x1, c.y1, c.x2, c.y2);
    const std::string error = folder_error(good + bad);
    check_has(error, {"Annotations/a.xml", "object 2 (cat)", "box ("});
    for (const char* piece : c.pieces) check_has(error, {piece});
    all += bad;
  }
  check_has(folder_error("<object><name>cat</name></object>"), {"object 1 (cat)", "xmin is missing"});

  const VocFolder folder;
  folder.add("a", 20, 10, all + good);
  folder.add("b", 20, 10, voc_object("cat", "5", "5", "5", "5"));
  folder.list("train", "a\nb");
  VocOptions options;
  options.drop_bad_boxes = true;
  VocReport report;
  const Dataset data = read_voc(folder.root(), "train", {}, options, &report);
  REQUIRE(data.samples.size() == 2);
  CHECK(data.samples[0].objects.size() == 1);
  CHECK(data.samples[1].objects.empty());
  CHECK(report.dropped.size() == cases.size() + 1);
  CHECK(report.clipped == 0);
  check_has(report.dropped.back(), {"b.xml", "object 1 (cat)", "(5, 5, 5, 5)"});
  check_has(to_string(report), {"15 bad boxes left out", "and 10 more"});
}

TEST_CASE("boxes that reach beyond the image are clipped and counted") {
  const VocFolder folder;
  folder.add("a", 20, 10, voc_object("cat", "0", "-3.5", "25", "11") + good + voc_object("cat", "19", "1", "20.5", "5"));
  folder.list("train", "a");
  VocReport report;
  const Dataset data = read_voc(folder.root(), "train", {}, {}, &report);
  CHECK(data.samples[0].objects[0].box == Box{0, 0, 20, 10});
  CHECK(data.samples[0].objects[2].box == Box{18, 0, 20, 5});
  CHECK(report.clipped == 2);
  check_has(to_string(report), {"2 boxes clipped"});
}

TEST_CASE("all unknown classes are listed") {
  const std::string error = folder_error(good + voc_object("dog", "1", "1", "5", "5") + voc_object("dog", "1", "1", "5", "5") +
                                             voc_object("Cat", "1", "1", "5", "5"),
                                         {"bird", "cat"});
  check_has(error, {"'Cat' (1 object, first in", "'dog' (2 objects, first in", "a.xml", "expected: bird, cat"});
  check_has(folder_error(good, {"cat", "cat"}), {"'cat'", "twice"});
}

TEST_CASE("missing and duplicate files and ids") {
  const VocFolder folder;
  folder.add("a", 20, 10, good);
  folder.add("b", 20, 10, good);
  const auto error = [&](const std::string& split) { return error_of([&] { read_voc(folder.root(), split); }); };
  folder.list("train", "a\nb\na\n");
  check_has(error("train"), {"train.txt", "'a'", "twice"});
  folder.list("train", "a\n");
  folder.list("val", "b\na\n");
  folder.list("cat_train", "a  1\n");
  check_has(error("train+val"), {"val.txt", "'a'", "twice", "before in", "train.txt"});
  check_has(error("test"), {"test.txt", "no such split", "available: train, val"});
  check_has(error("../train"), {"'../train'"});
  for (const char* id : {"../a", "x/a", "/etc/passwd", "..", "a\\b", "a\x01"}) {
    INFO(id);
    folder.list("bad", std::string("a\n") + id + "\n");
    check_has(error("bad"), {"bad.txt:2", "not a plain file name"});
  }
  folder.list("empty", "\n  \n");
  check_has(error("empty"), {"empty.txt", "empty"});
  check_has(error(""), {"no split"});
  folder.list("more", "a\nc\n");
  check_has(error("more"), {"JPEGImages/c", "no such image"});
  folder.add_image("c.png", 4, 4);
  check_has(error("more"), {"c.xml", "no such annotation"});
  folder.add_image("a.jpg", 20, 10);
  check_has(error("train"), {"2 images", "a.jpg, a.png"});
}

TEST_CASE("an image of another size than its annotation says") {
  const VocFolder folder;
  folder.add("a", 20, 10, good);
  folder.add_image("a.png", 10, 20);
  folder.list("train", "a");
  check_has(error_of([&] { read_voc(folder.root(), "train"); }), {"a.xml", "20x10", "a.png", "10x20"});
  VocOptions unchecked;
  unchecked.check_images = false;
  CHECK(read_voc(folder.root(), "train", {}, unchecked).samples[0].width == 20);
  // Without a size the image's own counts.
  write_text(folder / "Annotations/a.xml", "<annotation>" + good + "</annotation>");
  CHECK(read_voc(folder.root(), "train", {}, unchecked).samples[0].height == 20);
  write_text(folder / "JPEGImages/a.png", "not an image");
  check_has(error_of([&] { read_voc(folder.root(), "train"); }), {"a.png", "expected a JPEG, PNG"});
}

TEST_CASE("the size in an image's header is that of the decoded image") {
  const TemporaryFolder folder;
  const Image image = make_image(30, 17);
  const std::string jpeg = encode_jpeg(image), png = encode_png(image);
  const auto size_of_bytes = [&](const std::string& bytes) {
    write_text(folder / "image.jpg", bytes);
    const Image decoded = read_image(folder / "image.jpg");
    const ImageSize size = read_image_size(folder / "image.jpg");
    CHECK(size.height == decoded.height);
    CHECK(size.width == decoded.width);
    return size;
  };
  CHECK(size_of_bytes(jpeg) == ImageSize{30, 17});
  CHECK(size_of_bytes(png) == ImageSize{30, 17});
  for (const char orientation : {1, 3, 6, 8}) {
    const std::string tiff =
        std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) + orientation + std::string(7, '\0');
    const std::string exif =
        std::string("\xff\xe1\0", 3) + static_cast<char>(8 + tiff.size()) + std::string("Exif\0\0", 6) + tiff;
    CHECK(size_of_bytes(jpeg.substr(0, 2) + exif + jpeg.substr(2)) ==
          (orientation >= 5 ? ImageSize{17, 30} : ImageSize{30, 17}));
  }
  for (const std::string& bytes : {jpeg, png}) {  // cut inside the header
    for (std::size_t length = 0; length < 24; ++length) {
      write_text(folder / "image.jpg", bytes.substr(0, length));
      CHECK(error_of([&] { read_image_size(folder / "image.jpg"); }) != "no error");
    }
  }
  check_has(error_of([&] { read_image_size(folder / "none.jpg"); }), {"none.jpg"});
}

TEST_CASE("5,000 annotations are read quickly") {
  const VocFolder folder;
  std::string ids, objects;
  for (int i = 0; i < 5; ++i) objects += voc_object("cat", "1", "1", "5", "5", "<pose>Left</pose><difficult>0</difficult>");
  folder.add("0", 20, 10, objects);
  for (int i = 0; i < 5000; ++i) {
    const std::string id = std::to_string(i);
    ids += id + "\n";
    if (i == 0) continue;
    write_text(folder / ("Annotations/" + id + ".xml"), voc_xml(20, 10, objects));
    fs::create_hard_link(folder / "JPEGImages/0.png", folder / ("JPEGImages/" + id + ".png"));
  }
  folder.list("train", ids);
  const auto start = std::chrono::steady_clock::now();
  CHECK(read_voc(folder.root(), "train").samples.size() == 5000);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << "5,000 annotations with their images' headers: " << seconds << " s\n";
  CHECK(seconds < 20);  // generous: sanitizers, busy machines
}

TEST_CASE("BCCD: two boxes without area") {
  const auto root = real_data("bccd");
  if (!root) {
    WARN("skipped: no bccd in SHRIKE_DATA or shared/data");
    return;
  }
  check_has(error_of([&] { read_voc(*root, "trainval+test"); }), {"BloodImage_003", "no area"});
  VocOptions options;
  options.drop_bad_boxes = true;
  VocReport report;
  const Dataset data = read_voc(*root, "trainval+test", {}, options, &report);
  CHECK(data.classes == std::vector<std::string>{"Platelets", "RBC", "WBC"});
  CHECK(data.samples.size() == 364);
  CHECK(report.objects == 4886);
  CHECK(report.dropped.size() == 2);
  CHECK(read_voc(*root, "test", data.classes, options).samples.size() == 72);
  check_has(error_of([&] { read_voc(*root, "test", voc_classes()); }), {"'Platelets'", "'RBC'", "'WBC'", "aeroplane"});
}

TEST_CASE("voc100: integer and float annotations give the same boxes") {
  const auto root = real_data("voc100");
  if (!root) {
    WARN("skipped: no voc100 in SHRIKE_DATA or shared/data");
    return;
  }
  VocReport report;
  const Dataset data = read_voc(*root, "all", voc_classes(), {}, &report);
  CHECK(data.samples.size() == 100);
  CHECK(report.objects == 273);
  CHECK(report.difficult == 38);
  const TemporaryFolder folder;
  fs::copy(*root + "/ImageSets", folder / "ImageSets", fs::copy_options::recursive);
  fs::create_directory_symlink(fs::absolute(*root + "/JPEGImages"), folder / "JPEGImages");
  fs::create_directory_symlink(fs::absolute(*root + "/Annotations_float"), folder / "Annotations");
  const Dataset floats = read_voc(folder.path().string(), "all", voc_classes());
  REQUIRE(floats.samples.size() == 100);
  const auto in_order = [](std::vector<Object> objects) {
    std::sort(objects.begin(), objects.end(), [](const Object& a, const Object& b) {
      return std::tie(a.label, a.box.x1, a.box.y1, a.box.x2, a.box.y2) <
             std::tie(b.label, b.box.x1, b.box.y1, b.box.x2, b.box.y2);
    });
    return objects;
  };
  std::size_t same = 0;
  for (std::size_t i = 0; i < 100; ++i) {
    const std::vector<Object> a = in_order(data.samples[i].objects), b = in_order(floats.samples[i].objects);
    REQUIRE(a.size() == b.size());
    for (std::size_t k = 0; k < a.size(); ++k) same += a[k].label == b[k].label && a[k].box == b[k].box;
  }
  CHECK(same == 273);
}
