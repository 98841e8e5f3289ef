// What tch 0.24 does not expose of libtorch. Each function returns 0, or 1 with a message in `error` (libtorch throws).
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstring>
#include <exception>
#include <vector>

namespace {

std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
    std::vector<at::Tensor> out;
    out.reserve(count);
    for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
    return out;
}

template <typename Body>
int guarded(char *error, size_t capacity, Body body) {
    const char *what = "unknown C++ exception";
    try {
        body();
        return 0;
    } catch (const std::exception &err) {
        what = err.what();
        std::strncpy(error, what, capacity - 1);
    } catch (...) {
        std::strncpy(error, what, capacity - 1);
    }
    error[capacity - 1] = '\0';
    return 1;
}

}  // namespace

extern "C" {

// One AdamW step, in place, for parameters that share a decay; `steps` are float scalars that count updates.
int dbp_fused_adamw(size_t count, at::Tensor *const *params, at::Tensor *const *grads, at::Tensor *const *exp_avgs,
                    at::Tensor *const *exp_avg_sqs, at::Tensor *const *steps, double lr, double beta1, double beta2,
                    double weight_decay, double eps, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::NoGradGuard no_grad;
        auto step_list = list(steps, count);
        at::_foreach_add_(step_list, 1);
        at::_fused_adamw_(list(params, count), list(grads, count), list(exp_avgs, count), list(exp_avg_sqs, count), {},
                          step_list, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
    });
}

// Drops the gradients, so that the next backward pass writes them instead of adding to zeros.
int dbp_clear_grads(size_t count, at::Tensor *const *params, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        for (size_t i = 0; i < count; ++i) params[i]->mutable_grad() = at::Tensor();
    });
}
}
