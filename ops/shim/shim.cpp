// What libtorch has and tch does not pass on: oneDNN's prepacked operators, memory formats, inference mode.
// Every function that can fail returns null and leaves the message in zoo_last_error().
#include <ATen/ATen.h>
#include <ATen/TracerMode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>
#include <optional>
#include <string>
#include <string_view>

using at::IntArrayRef;
using at::Tensor;
using OptTensor = std::optional<Tensor>;
using OptText = std::optional<std::string_view>;
using Scalars = c10::List<std::optional<at::Scalar>>;

namespace {
thread_local std::string last_error;

template <class F> Tensor *guarded(F f) {
  try {
    return new Tensor(f());
  } catch (const c10::Error &e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception &e) {
    last_error = e.what();
  }
  return nullptr;
}

OptTensor optional(const Tensor *t) { return t ? OptTensor(*t) : std::nullopt; }

template <class Signature> auto find(const char *name, const char *overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}
} // namespace

extern "C" {
struct ZooConv {
  int64_t padding[2], stride[2], dilation[2], groups;
};

const char *zoo_last_error() { return last_error.c_str(); }

void *zoo_inference_mode_enter() { return new c10::InferenceMode(true); }
void zoo_inference_mode_leave(void *guard) { delete static_cast<c10::InferenceMode *>(guard); }

void zoo_allow_tf32(bool allowed) {
  at::globalContext().setAllowTF32CuDNN(allowed);
  at::globalContext().setAllowTF32CuBLAS(allowed);
}
bool zoo_is_tracing() { return at::tracer::impl::is_dispatch_enabled(); }

Tensor *zoo_channels_last(const Tensor *x) {
  return guarded([&] { return x->contiguous(at::MemoryFormat::ChannelsLast); });
}

Tensor *zoo_onednn_pack_conv(const Tensor *weight, const ZooConv *c, const int64_t *input_size) {
  return guarded([&] {
    static auto op = find<Tensor(const Tensor &, IntArrayRef, IntArrayRef, IntArrayRef, int64_t, at::OptionalIntArrayRef)>(
        "mkldnn::_reorder_convolution_weight", "");
    return op.call(*weight, IntArrayRef(c->padding, 2), IntArrayRef(c->stride, 2), IntArrayRef(c->dilation, 2), c->groups,
                   at::OptionalIntArrayRef(IntArrayRef(input_size, 4)));
  });
}

Tensor *zoo_onednn_conv(const Tensor *x, const Tensor *packed, const Tensor *bias, const ZooConv *c, const char *activation,
                        const char *algorithm) {
  return guarded([&] {
    static auto op = find<Tensor(const Tensor &, const Tensor &, const OptTensor &, IntArrayRef, IntArrayRef, IntArrayRef,
                                 int64_t, std::string_view, Scalars, OptText)>("mkldnn::_convolution_pointwise", "");
    static const Scalars none;
    return op.call(*x, *packed, optional(bias), IntArrayRef(c->padding, 2), IntArrayRef(c->stride, 2),
                   IntArrayRef(c->dilation, 2), c->groups, activation, none, algorithm ? OptText(algorithm) : std::nullopt);
  });
}

// Into `other` where nobody but the caller holds its memory, else into a copy. The operator that leaves `other` alone copies
// it too, but to the plain format whatever it was, which costs many times what the convolution does.
Tensor *zoo_onednn_conv_add(const Tensor *x, const Tensor *other, const Tensor *packed, const Tensor *bias, const ZooConv *c,
                            const char *activation) {
  return guarded([&] {
    static auto op = find<Tensor &(Tensor &, const Tensor &, const Tensor &, const OptTensor &, IntArrayRef, IntArrayRef,
                                   IntArrayRef, int64_t, std::string_view, std::optional<at::Scalar>, OptText, Scalars, OptText)>(
        "mkldnn::_convolution_pointwise_", "binary");
    static const Scalars none;
    const auto format = x->suggest_memory_format();
    const bool own = other->use_count() == 1 && other->storage().use_count() == 1 && other->is_contiguous(format);
    Tensor sum = own ? *other : other->clone(format);
    return op.call(sum, *x, *packed, optional(bias), IntArrayRef(c->padding, 2), IntArrayRef(c->stride, 2),
                   IntArrayRef(c->dilation, 2), c->groups, "add", std::nullopt,
                   activation ? OptText(activation) : std::nullopt, none, std::nullopt);
  });
}

Tensor *zoo_onednn_pack_linear(const Tensor *weight, int64_t rows) {
  return guarded([&] {
    static auto op = find<Tensor(const Tensor &, std::optional<int64_t>)>("mkldnn::_reorder_linear_weight", "");
    return op.call(*weight, rows);
  });
}

Tensor *zoo_onednn_linear(const Tensor *x, const Tensor *packed, const Tensor *bias, const char *activation,
                          const char *algorithm) {
  return guarded([&] {
    static auto op = find<Tensor(const Tensor &, const Tensor &, const OptTensor &, std::string_view, Scalars, OptText)>(
        "mkldnn::_linear_pointwise", "");
    static const Scalars none;
    return op.call(*x, *packed, optional(bias), activation, none, algorithm ? OptText(algorithm) : std::nullopt);
  });
}

Tensor *zoo_onednn_linear_add(const Tensor *x, const Tensor *other, const Tensor *packed, const Tensor *bias) {
  return guarded([&] {
    static auto op = find<Tensor(const Tensor &, const Tensor &, const Tensor &, const OptTensor &, std::string_view)>(
        "mkldnn::_linear_pointwise", "binary");
    return op.call(*x, *other, *packed, optional(bias), "add");
  });
}
}
