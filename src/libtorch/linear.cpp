// A linear map of float32 rows on the CPU through oneDNN, where libtorch's own takes the BLAS that it was built with.
#include "shim.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using at::Tensor;
using Scalars = c10::List<std::optional<at::Scalar>>;
using Pointwise = Tensor(const Tensor &, const Tensor &, const std::optional<Tensor> &, c10::string_view, Scalars,
                         std::optional<c10::string_view>);

// What `torch.compile` calls for a linear map; absent where libtorch was built without oneDNN.
const std::optional<c10::TypedOperatorHandle<Pointwise>> &pointwise() {
    static const auto found = []() -> std::optional<c10::TypedOperatorHandle<Pointwise>> {
        auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
        if (!op) return std::nullopt;
        return op->typed<Pointwise>();
    }();
    return found;
}

// x Wᵀ + b, untracked. Shapes: x [.., d], w [o, d] with any strides.
Tensor product(const Tensor &x, const Tensor &w, const std::optional<Tensor> &bias) {
    return pointwise()->call(x, w, bias, "none", Scalars(), "");
}

struct Linear : torch::autograd::Function<Linear> {
    static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, const Tensor &w,
                          const Tensor &bias) {
        context->save_for_backward({x, w});
        at::AutoDispatchBelowADInplaceOrView below;
        return product(x, w, bias);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   torch::autograd::variable_list gradients) {
        c10::NoGradGuard no_grad;
        auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &w = saved[1];
        auto gradient = gradients[0].reshape({-1, w.size(0)});
        Tensor dx, dw, db;
        if (context->needs_input_grad(0)) dx = product(gradient, w.t(), std::nullopt).view(x.sizes());
        // Reduced over rows, where BLAS measures no worse and needs no copies.
        if (context->needs_input_grad(1)) dw = gradient.t().mm(x.reshape({-1, w.size(1)}));
        if (context->needs_input_grad(2)) db = gradient.sum(0);
        return {dx, dw, db};
    }
};

}  // namespace

extern "C" {

// Whether this build of libtorch has what `dbp_linear` needs.
int dbp_has_linear() { return pointwise().has_value() ? 1 : 0; }

// Whether this processor multiplies bfloat16 by instructions that oneDNN uses.
int dbp_has_bf16() {
    try {
        auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_is_mkldnn_bf16_supported", ""});
        return op && op->typed<bool()>().call() ? 1 : 0;
    } catch (...) {
        return 0;
    }
}

// y = x Wᵀ + b, tracked by autograd once; float32 on the CPU.
int dbp_linear(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, at::Tensor **out, char *error,
               size_t capacity) {
    return guarded(error, capacity, [&] { *out = new at::Tensor(Linear::apply(*x, *weight, *bias)); });
}
}
