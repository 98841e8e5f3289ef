// What attention.cpp and its kernels share. Nothing but data: the kernels are compiled for other processors than this program's
// other code, and a function of both could end up as either's.
#pragma once

#include <cstdint>

// Shapes: qkv, dqkv [N, L, 3, heads, width], out, dout [N, L, heads · width], softmax [N, heads, 2, L]. There are gradients in the
// backward pass alone.
struct AttentionBatch {
    int64_t images, tokens, heads, width;
    float *qkv, *out, *softmax, *dout, *dqkv;
};

// Does one head of one image, of `images · heads`, forward or backward; `room` is for its own use.
using AttentionKernel = void (*)(const AttentionBatch &, int64_t index, float *room);

extern "C" {
void dbp_attention_head(const AttentionBatch &, int64_t, float *);
#if defined(__x86_64__)
void dbp_attention_head_avx2(const AttentionBatch &, int64_t, float *);
#endif
}
