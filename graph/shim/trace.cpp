// libtorch's tracer, driven from Rust: named tensors go in as graph inputs, the recorded nodes come out as JSON.
// Every function that can fail returns null or false and leaves the message in zoo_graph_last_error().
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/normalize_ops.h>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

using at::Tensor;
using namespace torch::jit;

namespace {
thread_local std::string last_error;
// Values of the running trace that were read as numbers; the trace does not show it.
thread_local std::vector<Value *> numbers;
thread_local at::CallbackHandle watching = at::INVALID_CALLBACK_HANDLE;

template <class F> auto guarded(F f) -> decltype(f()) {
  try {
    return f();
  } catch (const c10::Error &e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception &e) {
    last_error = e.what();
  }
  return {};
}

struct Recorded {
  std::string json;
  std::vector<Tensor> tensors;
  // What folding needs: the graph, its values by number, and what is known of them.
  std::shared_ptr<Graph> graph;
  std::vector<const Value *> values;
  std::map<const Value *, c10::IValue> known;
};

std::string text(const std::string &s) {
  std::string out = "\"";
  for (unsigned char c : s) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '"';
}

template <class Items, class F> std::string list(const Items &items, F f) {
  std::string out = "[";
  const char *comma = "";
  for (const auto &item : items) {
    out += comma + f(item);
    comma = ",";
  }
  return out + "]";
}

// As text, because JSON has no infinities.
std::string number(double x) {
  char digits[40];
  std::snprintf(digits, sizeof digits, "%.17g", x);
  return text(digits);
}

class Writer {
public:
  // Outputs behind the first `count` are those that were read as numbers.
  Recorded write(const Graph &graph, size_t count) {
    auto values = [&](auto range) { return list(range, [&](const Value *v) { return id(v); }); };
    std::string inputs = values(graph.inputs()), nodes, comma;
    for (const Node *node : graph.nodes()) {
      TORCH_CHECK(node->blocks().empty(), "control flow in a trace: ", node->kind().toQualString());
      nodes += comma + this->node(*node);
      comma = ",\n";
    }
    auto outputs = graph.outputs();
    std::string given = values(outputs.slice(0, count)), numbers = values(outputs.slice(count));
    recorded_.json = "{\"inputs\":" + inputs + ",\"outputs\":" + given + ",\"numbers\":" + numbers + ",\"nodes\":[" + nodes + "],\"values\":" + list(values_, [](const std::string &v) { return v; }) + "}";
    recorded_.values.resize(ids_.size());
    for (const auto &[value, id] : ids_) recorded_.values[id] = value;
    return std::move(recorded_);
  }

private:
  std::string node(const Node &node) {
    const auto *schema = node.maybeSchema();
    std::string names, comma;
    for (size_t i = 0; i < node.inputs().size(); i++) {
      bool known = schema && i < schema->arguments().size();
      names += comma + text(known ? schema->arguments()[i].name() : "");
      comma = ",";
    }
    auto values = [&](auto range) { return list(range, [&](const Value *v) { return id(v); }); };
    std::string out = "{\"kind\":" + text(node.kind().toQualString()) + ",\"scope\":" + text(node.scopeName()) +
                      ",\"inputs\":" + values(node.inputs()) + ",\"names\":[" + names +
                      "],\"outputs\":" + values(node.outputs());
    if (node.kind() == prim::Constant) {
      auto value = toIValue(node.output());
      out += ",\"constant\":" + (value ? constant(*value) : std::string("{\"Other\":\"unknown\"}"));
    }
    return out + "}";
  }

  std::string constant(const c10::IValue &v) {
    auto integer = [](int64_t i) { return std::to_string(i); };
    auto boolean = [](bool b) { return std::string(b ? "true" : "false"); };
    if (v.isNone()) return "\"None\"";
    if (v.isBool()) return "{\"Bool\":" + boolean(v.toBool()) + "}";
    if (v.isInt()) return "{\"Int\":" + integer(v.toInt()) + "}";
    if (v.isDouble()) return "{\"Float\":" + number(v.toDouble()) + "}";
    if (v.isString()) return "{\"Text\":" + text(v.toStringRef()) + "}";
    if (v.isDevice()) return "{\"Text\":" + text(v.toDevice().str()) + "}";
    if (v.isIntList()) return "{\"Ints\":" + list(v.toIntVector(), integer) + "}";
    if (v.isDoubleList()) return "{\"Floats\":" + list(v.toDoubleVector(), number) + "}";
    if (v.isBoolList()) {
      std::vector<int64_t> bits;
      for (bool b : v.toBoolList()) bits.push_back(b);
      return "{\"Bools\":" + list(bits, [&](int64_t b) { return boolean(b); }) + "}";
    }
    if (v.isTensor()) {
      recorded_.tensors.push_back(v.toTensor());
      return "{\"Tensor\":" + std::to_string(recorded_.tensors.size() - 1) + "}";
    }
    return "{\"Other\":" + text(v.tagKind()) + "}";
  }

  std::string id(const Value *value) {
    auto [at, added] = ids_.try_emplace(value, values_.size());
    if (added) values_.push_back(describe(*value));
    return std::to_string(at->second);
  }

  static std::string describe(const Value &value) {
    std::string out = "{\"name\":" + text(value.debugName());
    if (auto tensor = value.type()->cast<c10::TensorType>()) {
      if (auto dtype = tensor->scalarType()) out += ",\"dtype\":" + std::to_string(static_cast<int>(*dtype));
      auto sizes = tensor->sizes().concrete_sizes();
      auto number = [](int64_t n) { return std::to_string(n); };
      if (sizes) out += ",\"shape\":" + list(*sizes, number);
      auto strides = tensor->strides().concrete_sizes();
      if (strides) out += ",\"strides\":" + list(*strides, number);
    }
    return out + "}";
  }

  Recorded recorded_;
  std::vector<std::string> values_;
  std::map<const Value *, size_t> ids_;
};
// The value, from what is known, constants, and lists of them; none where it depends on the input.
c10::IValue evaluate(const Recorded &recorded, const Value *value) {
  auto found = recorded.known.find(value);
  if (found != recorded.known.end()) return found->second;
  if (auto constant = toIValue(value)) return *constant;
  const Node *node = value->node();
  TORCH_CHECK(node->kind() == prim::ListConstruct, "no constant: ", node->kind().toQualString());
  c10::impl::GenericList list(value->type()->expectRef<c10::ListType>().getElementType());
  for (const Value *item : node->inputs()) list.push_back(evaluate(recorded, item));
  return list;
}

std::unique_ptr<at::ObserverContext> note_number(const at::RecordFunction &call) {
  auto state = tracer::getTracingState();
  if (!state || std::string_view(call.name()) != "aten::_local_scalar_dense") return nullptr;
  const auto &tensor = call.inputs()[0];
  if (state->hasValue(tensor)) numbers.push_back(state->getValue(tensor));
  return nullptr;
}

void watch() {
  numbers.clear();
  auto callback = at::RecordFunctionCallback(note_number).needsInputs(true).scopes({at::RecordScope::FUNCTION});
  watching = at::addThreadLocalCallback(callback);
}

void unwatch() {
  if (watching != at::INVALID_CALLBACK_HANDLE) at::removeCallback(watching);
  watching = at::INVALID_CALLBACK_HANDLE;
}
} // namespace

extern "C" {
const char *zoo_graph_last_error() { return last_error.c_str(); }

bool zoo_graph_begin(const Tensor *const *tensors, const char *const *names, size_t count) {
  return guarded([&] {
    TORCH_CHECK(!tracer::isTracing(), "this thread is tracing already");
    auto state = std::make_shared<tracer::TracingState>();
    tracer::setTracingState(state);
    for (size_t i = 0; i < count; i++) {
      auto *value = state->graph->addInput();
      value->setDebugName(names[i]);
      value->inferTypeFrom(*tensors[i]);
      state->setValue(*tensors[i], value);
    }
    watch();
    return true;
  });
}

bool zoo_graph_is_tracing() { return tracer::isTracing(); }
void zoo_graph_abandon() {
  unwatch();
  tracer::abandon();
}

Recorded *zoo_graph_end(const Tensor *const *outputs, size_t count) {
  unwatch();
  auto state = tracer::getTracingState();
  auto *recorded = guarded([&]() -> Recorded * {
    TORCH_CHECK(state, "this thread is not tracing");
    for (size_t i = 0; i < count; i++) state->graph->registerOutput(state->getOutput(*outputs[i], i));
    // As outputs, so that they follow when a node is replaced.
    for (Value *number : numbers) state->graph->registerOutput(number);
    tracer::setTracingState(nullptr);
    NormalizeOps(state->graph);
    auto *recorded = new Recorded(Writer().write(*state->graph, count));
    recorded->graph = state->graph;
    return recorded;
  });
  tracer::setTracingState(nullptr);
  return recorded;
}

// Tells the tensor that a value of the graph (an input, such as a parameter) has.
void zoo_graph_know(Recorded *recorded, size_t value, const Tensor *tensor) {
  recorded->known[recorded->values[value]] = tensor->detach();
}

// Runs the node that computes a value, whose inputs are all known; afterwards its outputs are.
bool zoo_graph_run(Recorded *recorded, size_t value) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const Node *node = recorded->values[value]->node();
    // The value may be one of a list's, which the node before gives.
    const Node *unpack = nullptr;
    if (node->kind() == prim::ListUnpack || node->kind() == prim::TupleUnpack) {
      unpack = node;
      node = unpack->input()->node();
    }
    Stack stack;
    for (const Value *input : node->inputs()) stack.push_back(evaluate(*recorded, input));
    node->getOperation()(stack);
    if (unpack) {
      c10::IValue items = stack.at(0);
      stack = items.isTuple() ? items.toTuple()->elements().vec() : items.toListRef().vec();
      node = unpack;
    }
    TORCH_CHECK(stack.size() == node->outputs().size(), "outputs of ", node->kind().toQualString());
    for (size_t i = 0; i < stack.size(); i++) recorded->known[node->outputs()[i]] = stack[i];
    return true;
  });
}

// The tensor of a known value; null where it is none.
Tensor *zoo_graph_known(const Recorded *recorded, size_t value) {
  auto found = recorded->known.find(recorded->values[value]);
  if (found == recorded->known.end() || !found->second.isTensor()) return nullptr;
  return new Tensor(found->second.toTensor());
}

const char *zoo_graph_json(const Recorded *recorded) { return recorded->json.c_str(); }
size_t zoo_graph_tensor_count(const Recorded *recorded) { return recorded->tensors.size(); }
Tensor *zoo_graph_tensor(const Recorded *recorded, size_t i) { return new Tensor(recorded->tensors[i]); }
void zoo_graph_free(Recorded *recorded) { delete recorded; }

// Suspends the tracer: what is computed until it is resumed enters the graph as constants.
void *zoo_graph_pause() {
  auto state = tracer::getTracingState();
  if (!state) return nullptr;
  tracer::setTracingState(nullptr);
  return new std::shared_ptr<tracer::TracingState>(state);
}
void zoo_graph_resume(void *paused) {
  auto *state = static_cast<std::shared_ptr<tracer::TracingState> *>(paused);
  if (!state) return;
  tracer::setTracingState(*state);
  delete state;
}

void zoo_graph_push_scope(const char *name) {
  // Not Graph::push_scope, which opens a prim::TracedModuleForward block.
  if (auto state = tracer::getTracingState()) {
    auto scope = state->graph->current_scope()->push(c10::Symbol::scope(name));
    state->graph->set_current_scope(scope);
  }
}
void zoo_graph_pop_scope() {
  auto state = tracer::getTracingState();
  if (state && !state->graph->current_scope()->isRoot())
    state->graph->set_current_scope(state->graph->current_scope()->parent());
}
}
