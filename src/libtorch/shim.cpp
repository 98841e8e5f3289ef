// What tch 0.24 does not expose of libtorch. Each function returns 0, or 1 with a message in `error` (libtorch throws).
#include "shim.h"

#include <c10/core/GradMode.h>

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

// One step of stochastic gradient descent, in place, for parameters that share a decay; without momentum there are no buffers.
int dbp_fused_sgd(size_t count, at::Tensor *const *params, at::Tensor *const *grads, at::Tensor *const *buffers,
                  size_t buffer_count, double lr, double momentum, int nesterov, double weight_decay, char *error,
                  size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::NoGradGuard no_grad;
        at::_fused_sgd_(list(params, count), list(grads, count), list(buffers, buffer_count), weight_decay, momentum, lr,
                        /*dampening=*/0.0, nesterov != 0, /*maximize=*/false, /*is_first_step=*/false);
    });
}

// One step of schedule-free AdamW, in place; gradients are used up. `share` is that of the step's z in the average.
int dbp_schedule_free_adamw(size_t count, at::Tensor *const *ys, at::Tensor *const *grads,
                            at::Tensor *const *exp_avg_sqs, at::Tensor *const *zs, double lr, double beta1, double beta2,
                            double bias_correction2, double weight_decay, double eps, double share, char *error,
                            size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::NoGradGuard no_grad;
        auto y = list(ys, count), g = list(grads, count), v = list(exp_avg_sqs, count), z = list(zs, count);
        at::_foreach_mul_(v, beta2);
        at::_foreach_addcmul_(v, g, g, 1 - beta2);
        auto root = at::_foreach_div(v, bias_correction2);
        at::_foreach_sqrt_(root);
        at::_foreach_add_(root, eps);
        at::_foreach_div_(g, root);
        if (weight_decay != 0) at::_foreach_add_(g, y, weight_decay);
        // x moves towards z and z against g; y, between them, by both.
        at::_foreach_lerp_(y, z, share);
        at::_foreach_add_(y, g, lr * (beta1 * (1 - share) - 1));
        at::_foreach_sub_(z, g, lr);
    });
}

// Moves each tensor by `weight` of the way to its end, in place; below 0 is away from it.
int dbp_lerp(size_t count, at::Tensor *const *tensors, at::Tensor *const *ends, double weight, char *error,
             size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::NoGradGuard no_grad;
        at::_foreach_lerp_(list(tensors, count), list(ends, count), weight);
    });
}

// Scales tensors down, in place, so that all together are no longer than `most`; `norm` is how long they were. Nothing is read
// from the device.
int dbp_clip_norm(size_t count, at::Tensor *const *tensors, double most, at::Tensor **norm, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::NoGradGuard no_grad;
        auto all = list(tensors, count);
        auto total = at::linalg_vector_norm(at::stack(at::_foreach_norm(all, 2)), 2);
        at::_foreach_mul_(all, (most / (total + 1e-6)).clamp_max(1.0));
        *norm = new at::Tensor(total);
    });
}

// Drops the gradients, so that the next backward pass writes them instead of adding to zeros.
int dbp_clear_grads(size_t count, at::Tensor *const *params, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        for (size_t i = 0; i < count; ++i) params[i]->mutable_grad() = at::Tensor();
    });
}
}
