// An operation is a struct: typed fields, forward, backward, and a visit that names the fields.
#pragma once

#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "shrike/core/tensor.hpp"

namespace shrike {

// Receives each field of an operation by name; printing, saving and loading are visitors.
struct Fields {
  virtual ~Fields() = default;
  virtual void operator()(const char* name, std::int64_t& value) = 0;
  virtual void operator()(const char* name, double& value) = 0;
  virtual void operator()(const char* name, bool& value) = 0;
  virtual void operator()(const char* name, std::string& value) = 0;
  virtual void operator()(const char* name, std::vector<std::int64_t>& value) = 0;
};

// What an operation's backward sees. Inputs and outputs are there if the operation saves them.
struct BackwardContext {
  const Tensors& inputs;
  const Tensors& outputs;
  const Tensors& grads;             // one per output, undefined where nothing depends on it
  const std::vector<bool>& needed;  // per input: is its gradient wanted
};

struct Op {
  virtual ~Op() = default;

  // The operation's word: "conv2d". Also its kernels', CPU file's and test's.
  virtual const char* name() const = 0;

  // Throws Error naming shapes and dtypes when the inputs do not fit. Values that backward needs are further outputs.
  virtual Tensors forward(const Tensors& inputs) const = 0;

  // One gradient per input, undefined where not needed.
  virtual Tensors backward(const BackwardContext& context) const;

  // Whether backward reads input or output number `i`; what it does not read is freed early.
  virtual bool saves_input(std::size_t) const { return true; }
  virtual bool saves_output(std::size_t) const { return false; }

  virtual void visit(Fields&) {}
};

using OpPtr = std::shared_ptr<const Op>;

// "conv2d stride=[1, 1] padding=[1, 1]"
std::string to_string(const Op& op);

}  // namespace shrike
