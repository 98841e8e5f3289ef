// Attention over few tokens on the CPU: heads in parallel, each from the caches. See attention_kernel.cpp.
#include "attention.h"
#include "shim.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>

namespace {

using at::Tensor;

// The best that this processor has.
AttentionKernel kernel() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return dbp_attention_head_avx2;
#endif
    return dbp_attention_head;
}

// Floats that a head takes for itself: two transposed matrices, and scores with their gradient; rows are whole vectors.
int64_t room_of(const AttentionBatch &batch) {
    const int64_t across = (batch.tokens + 15) / 16 * 16;
    return 2 * across * (batch.width + batch.tokens);
}

// OpenMP's entry point in the runtime that libtorch has loaded: its threads, not a second set beside them.
using Parallel = void (*)(void (*)(void *), void *, unsigned, unsigned);

Parallel parallel() {
    static const auto found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

// What the threads of one pass share.
struct Work {
    const AttentionBatch &batch;
    AttentionKernel kernel;
    float *room;
    int64_t room_each;
    std::atomic<int64_t> next{0}, threads{0};
};

void take_turns(void *shared) {
    auto &work = *static_cast<Work *>(shared);
    float *room = work.room + work.threads.fetch_add(1) * work.room_each;
    constexpr int64_t GRAIN = 8;
    const int64_t count = work.batch.images * work.batch.heads;
    for (int64_t from = work.next.fetch_add(GRAIN); from < count; from = work.next.fetch_add(GRAIN))
        for (int64_t i = from; i < std::min(from + GRAIN, count); ++i) work.kernel(work.batch, i, room);
}

void run(const AttentionBatch &batch, const at::TensorOptions &options) {
    static const AttentionKernel chosen = kernel();
    const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    const int64_t each = room_of(batch);
    const auto room = at::empty({threads * each}, options);
    Work work{batch, chosen, room.data_ptr<float>(), each};
    if (threads == 1 || !parallel())
        take_turns(&work);
    else
        parallel()(take_turns, &work, static_cast<unsigned>(threads), 0);
}

AttentionBatch batch_of(const Tensor &qkv, const Tensor &out, const Tensor &softmax) {
    return {qkv.size(0), qkv.size(1), qkv.size(3), qkv.size(4), qkv.data_ptr<float>(), out.data_ptr<float>(),
            softmax.data_ptr<float>(), nullptr, nullptr};
}

struct Attention : torch::autograd::Function<Attention> {
    static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &qkv) {
        at::AutoDispatchBelowADInplaceOrView below;
        const auto inputs = qkv.contiguous();
        const int64_t images = qkv.size(0), tokens = qkv.size(1), heads = qkv.size(3), width = qkv.size(4);
        auto out = at::empty({images, tokens, heads * width}, qkv.options());
        auto softmax = at::empty({images, heads, 2, tokens}, qkv.options());
        run(batch_of(inputs, out, softmax), qkv.options());
        context->save_for_backward({inputs, out, softmax});
        return out;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   torch::autograd::variable_list gradients) {
        c10::NoGradGuard no_grad;
        const auto saved = context->get_saved_variables();
        const auto gradient = gradients[0].contiguous();
        const auto out = at::empty_like(saved[0]);
        auto batch = batch_of(saved[0], saved[1], saved[2]);
        batch.dout = gradient.data_ptr<float>();
        batch.dqkv = out.data_ptr<float>();
        run(batch, out.options());
        return {out};
    }
};

}  // namespace

extern "C" {

// Whether threads of libtorch's own can run it.
int dbp_has_attention() { return parallel() ? 1 : 0; }

// softmax(q kᵀ / √d) v of every head. Shapes: qkv [N, L, 3, heads, d] → [N, L, heads · d]; float32 on the CPU, d a multiple of 8.
int dbp_attention(const at::Tensor *qkv, at::Tensor **out, char *error, size_t capacity) {
    return guarded(error, capacity, [&] { *out = new at::Tensor(Attention::apply(*qkv)); });
}
}
