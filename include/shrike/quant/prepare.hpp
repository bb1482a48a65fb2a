// Preparing a fused graph for int8: fake-quantize nodes where codes will be, observers to find their scales.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "shrike/graph/graph.hpp"
#include "shrike/quant/observer.hpp"

namespace shrike::quant {

// A quantized tensor that one graph makes and another takes: the type of its codes, and the scale [1], a tensor that both
// share.
struct Port {
  Dtype dtype = Dtype::u8;
  Tensor scale;
};

struct PrepareOptions {
  std::string prefix;                   // before the names of this graph's layers: "backbone"
  std::vector<std::string> keep_float;  // layers, by globs on their names (* and ?)
  bool first_layer_float = false;
  bool predictors_float = true;    // layers that make a graph's output; not with quantize_outputs
  bool quantize_outputs = false;   // the outputs become codes: see Prepared::output_port
  std::vector<Port> inputs;        // the first inputs are codes of another graph; others are float
  ObserverOptions observer;        // of activations
  ObserverOptions weights;         // of each output channel; training knows all of the range alone
  float input_reach = 0;           // the greatest absolute value that a float input can have; 0: not known, so it is observed
  bool learned = false;            // scales of activations and weights are parameters (LSQ)
  std::int64_t freeze_after = -1;  // training steps after which observers stand still; negative: never
};

// A graph with fake-quantize nodes. It trains and runs like any module.
//
// Calibration: begin_calibration(), forward() of the images in evaluation mode, end_calibration(). Meanwhile nothing is
// rounded. Training: forward() in training mode moves the observers, in evaluation mode never; from scales that were set
// without calibration averages go on, while choices by histogram keep them. Weights are always rounded at the scales that they
// have now.
//
// Learned scales (Esser et al., "Learned Step Size Quantization", ICLR 2020): those of activations are started from the first
// batch or calibration, those of weights from the weights' ranges. The paper's start, 2 mean |w| / sqrt(127) in 8 bits, suits
// fewer bits: for normally distributed weights it is some four times the step of least error.
class Prepared : public Graph {
 public:
  struct Activation {
    Value value = none;  // the float tensor that is observed
    Value scale = none;  // constant [1]
    Dtype dtype = Dtype::u8;
    Observer observer;
    bool known = false;    // its range is: it is not observed
    bool started = false;  // a learned scale that has a value
    bool asked = false;    // whether there is a scale from before training
    bool given = false;    // which stays: a histogram cannot go on from it
  };
  struct Weight {
    Value weight = none;
    Value scale = none;  // constant [K]
    std::string name;
    bool started = false;  // learned scales that have values
  };

  std::vector<Activation> activations;
  std::vector<Weight> weights;
  std::map<Value, Dtype> code_inputs;                             // graph inputs that will be codes
  std::vector<std::pair<std::string, std::string>> float_layers;  // name and why
  bool quantize_outputs = false;
  std::string prefix;

  Tensors forward(const Tensors& in) override;
  // Not while observers look, nor before the scales of weights that training moved are up to date.
  bool replayable() const override { return !calibrating_ && !weights_moved_; }

  void begin_calibration();
  // Sets every scale. Throws Error naming a tensor that was never seen, or when begin_calibration() was not called. Returns the
  // names of activations that were constant.
  std::vector<std::string> end_calibration();

  // The codes of output `i`, for PrepareOptions::inputs of the graphs that read it. Throws Error when it has none.
  Port output_port(std::size_t i) const;

  // Scales of the weights as they are now; forward() does it where they may have moved. Learned ones are started.
  void update_weight_scales();
  // What they are, [K], greater than 0: learned ones without their sign, but where one is 0, of which nothing was learned.
  Tensor scales_of(const Weight& weight) const;

  // The steps of training so far decide when observers stand still.
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 protected:
  void computed(Value value, const Tensor& tensor) override;

 private:
  friend std::shared_ptr<Prepared> prepare(const Graph& graph, const PrepareOptions& options);

  bool calibrating_ = false;
  bool weights_moved_ = true;
  std::int64_t steps_ = 0;
  std::int64_t freeze_after_ = -1;
  ObserverOptions weight_ranges_;
};

// The constants stay those of `graph`. Quantized are conv2d and linear with constant weights, unless kept in float; max
// pooling, RoI pooling, reshape, flatten and permute pass codes through. Activations that cannot be negative are u8, others s8.
std::shared_ptr<Prepared> prepare(const Graph& graph, const PrepareOptions& options = {});

// Operations that move or compare elements, so that codes pass with their scale.
bool passes_codes(const std::string& op);

// Whether `text` fits a pattern with * and ?.
bool fits_glob(const std::string& pattern, const std::string& text);

}  // namespace shrike::quant
