// Attention of one head in float32, for token counts at which all of it stays in the processor's caches.
//
// Everything is read from and written to where it lies in `[N, L, 3, heads, d]`: no copies by head. build.rs compiles this file for
// several instruction sets, under names with SUFFIX; vectors are GCC's and clang's own, which any processor has.
#include "attention.h"

#include <cmath>
#include <cstring>

#ifndef SUFFIX
#define SUFFIX
#endif
#define JOIN(a, b) a##b
#define NAMED(a, b) JOIN(a, b)
#define INLINE inline __attribute__((always_inline))

namespace {

// What one register holds; longer vectors would live in memory. Memory need not be aligned.
#if defined(__AVX2__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

INLINE Floats load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
INLINE void store(float *to, Floats x) { *reinterpret_cast<Unaligned *>(to) = x; }

// Rows of scores are so many floats, whatever a register holds; so are d's parts.
constexpr int64_t WIDTH = 8;

INLINE int64_t padded(int64_t count) { return (count + WIDTH - 1) / WIDTH * WIDTH; }

// A matrix in memory: where it begins, and how far apart rows lie.
struct Rows {
    float *at;
    int64_t step;
};

// e^x for −87 ≤ x ≤ 0, within one unit of the last place, and e^−87 below: 2^n by its bits, the rest by the polynomial of Cephes'
// expf. NaN stays NaN.
INLINE Floats exponential(Floats x) {
    const Floats least = Floats{} - 87.0f;
    x = x < least ? least : x;
    const float magic = 12582912.0f;  // 1.5 · 2²³: adding it rounds to a whole number, which the low bits then hold.
    const Floats rounded = x * 1.44269504088896341f + magic;
    const Floats n = rounded - magic;
    Floats r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    Ints bits;
    std::memcpy(&bits, &rounded, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    Floats scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

INLINE float largest(Floats x) {
    float m = x[0];
    for (int i = 1; i < LANES; ++i) m = x[i] > m ? x[i] : m;
    return m;
}

INLINE float total(Floats x) {
    float sum = x[0];
    for (int i = 1; i < LANES; ++i) sum += x[i];
    return sum;
}

// ROWS rows by COLUMNS vectors of C = α A B. `a[i · a_row + k · a_step]` is A at (i, k).
template <int ROWS, int COLUMNS>
INLINE void tile(int64_t depth, const float *a, int64_t a_row, int64_t a_step, Rows b, Rows c, float alpha) {
    Floats sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < COLUMNS; ++j) sum[i][j] = Floats{};
    for (int64_t k = 0; k < depth; ++k) {
        Floats row[COLUMNS];
        for (int j = 0; j < COLUMNS; ++j) row[j] = load(b.at + k * b.step + j * LANES);
        for (int i = 0; i < ROWS; ++i) {
            const float own = a[i * a_row + k * a_step];
            for (int j = 0; j < COLUMNS; ++j) sum[i][j] += row[j] * own;
        }
    }
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < COLUMNS; ++j) store(c.at + i * c.step + j * LANES, sum[i][j] * alpha);
}

// All m rows of COLUMNS vectors.
template <int COLUMNS>
INLINE void strip(int64_t m, int64_t depth, const float *a, int64_t a_row, int64_t a_step, Rows b, Rows c, float alpha) {
    const auto below = [&](int64_t i) { return Rows{c.at + i * c.step, c.step}; };
    int64_t i = 0;
    for (; i + 6 <= m; i += 6) tile<6, COLUMNS>(depth, a + i * a_row, a_row, a_step, b, below(i), alpha);
    if (i + 4 <= m) {
        tile<4, COLUMNS>(depth, a + i * a_row, a_row, a_step, b, below(i), alpha);
        i += 4;
    }
    if (i + 2 <= m) {
        tile<2, COLUMNS>(depth, a + i * a_row, a_row, a_step, b, below(i), alpha);
        i += 2;
    }
    if (i < m) tile<1, COLUMNS>(depth, a + i * a_row, a_row, a_step, b, below(i), alpha);
}

// C = α A B for n columns, a multiple of WIDTH. Shapes: A [m, depth], B [depth, n], C [m, n].
INLINE void multiply(int64_t m, int64_t n, int64_t depth, const float *a, int64_t a_row, int64_t a_step, Rows b, Rows c,
                     float alpha) {
    int64_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        strip<2>(m, depth, a, a_row, a_step, {b.at + j, b.step}, {c.at + j, c.step}, alpha);
    if (j < n) strip<1>(m, depth, a, a_row, a_step, {b.at + j, b.step}, {c.at + j, c.step}, alpha);
}

// Shapes: `[rows, columns]` → `[columns, padded(rows)]`, zeros behind.
INLINE void transpose(int64_t rows, int64_t columns, Rows from, float *to) {
    const int64_t width = padded(rows);
    for (int64_t c = 0; c < columns; ++c) {
        for (int64_t r = 0; r < rows; ++r) to[c * width + r] = from.at[r * from.step + c];
        for (int64_t r = rows; r < width; ++r) to[c * width + r] = 0.0f;
    }
}

// One head's views of a batch.
struct Head {
    int64_t tokens, width;
    float scale;
    Rows q, k, v, out;
    float *most, *share;  // Of every token: its largest score, and 1 / Σ e^(score − largest). Shapes: [L].
};

// out = softmax(q kᵀ / √d) v, and what the backward pass needs of the softmax.
INLINE void forward(const Head &head, float *room) {
    const int64_t tokens = head.tokens, across = padded(tokens);
    float *kt = room, *s = room + across * head.width;
    transpose(tokens, head.width, head.k, kt);
    multiply(tokens, across, head.width, head.q.at, head.q.step, 1, {kt, across}, {s, across}, head.scale);
    for (int64_t i = 0; i < tokens; ++i) {
        float *row = s + i * across;
        for (int64_t j = tokens; j < across; ++j) row[j] = -INFINITY;
        Floats most = Floats{} - INFINITY;
        for (int64_t j = 0; j < across; j += LANES) {
            const Floats x = load(row + j);
            most = x > most ? x : most;
        }
        const float m = largest(most);
        Floats sum = Floats{};
        for (int64_t j = 0; j < across; j += LANES) {
            const Floats x = exponential(load(row + j) - m);
            store(row + j, x);
            sum += x;
        }
        const float share = 1.0f / total(sum);
        head.most[i] = m;
        head.share[i] = share;
        for (int64_t j = 0; j < across; j += LANES) store(row + j, load(row + j) * share);
    }
    multiply(tokens, head.width, tokens, s, across, 1, head.v, head.out, 1.0f);
}

// Gradients of q, k and v from that of out, the softmax computed again.
INLINE void backward(const Head &head, Rows dout, Rows dq, Rows dk, Rows dv, float *room) {
    const int64_t tokens = head.tokens, across = padded(tokens);
    float *kt = room, *vt = kt + across * head.width, *p = vt + across * head.width, *ds = p + tokens * across;
    transpose(tokens, head.width, head.k, kt);
    transpose(tokens, head.width, head.v, vt);
    multiply(tokens, across, head.width, head.q.at, head.q.step, 1, {kt, across}, {p, across}, head.scale);
    multiply(tokens, across, head.width, dout.at, dout.step, 1, {vt, across}, {ds, across}, 1.0f);
    for (int64_t i = 0; i < tokens; ++i) {
        Floats along = Floats{};  // Σ p dp of the row, which is out · dout.
        for (int64_t c = 0; c < head.width; c += LANES)
            along += load(head.out.at + i * head.out.step + c) * load(dout.at + i * dout.step + c);
        const float mean = total(along), most = head.most[i], share = head.share[i];
        float *row = p + i * across, *gradient = ds + i * across;
        for (int64_t j = 0; j < across; j += LANES) {
            Floats x = load(row + j) - most;
            x = exponential(x > 0.0f ? Floats{} : x) * share;  // Above 0 behind the last token alone.
            store(row + j, x);
            store(gradient + j, x * (load(gradient + j) - mean));
        }
    }
    multiply(tokens, head.width, tokens, p, 1, across, dout, dv, 1.0f);
    multiply(tokens, head.width, tokens, ds, across, 1, head.k, dq, head.scale);
    multiply(tokens, head.width, tokens, ds, 1, across, head.q, dk, head.scale);
}

// Where a head's q, k or v begins in memory of [N, L, 3, heads, d].
INLINE Rows part(const AttentionBatch &batch, float *base, int64_t index, int64_t which) {
    const int64_t image = index / batch.heads, own = index % batch.heads * batch.width, all = batch.heads * batch.width;
    return {base + (image * batch.tokens * 3 + which) * all + own, 3 * all};
}

// The same in memory of [N, L, heads · d].
INLINE Rows mixed(const AttentionBatch &batch, float *base, int64_t index) {
    const int64_t image = index / batch.heads, own = index % batch.heads * batch.width, all = batch.heads * batch.width;
    return {base + image * batch.tokens * all + own, all};
}

}  // namespace

extern "C" {

void NAMED(dbp_attention_head, SUFFIX)(const AttentionBatch &batch, int64_t index, float *room) {
    const auto of = [&](float *base, int64_t which) { return part(batch, base, index, which); };
    const float scale = 1.0f / std::sqrt(static_cast<float>(batch.width));
    float *most = batch.softmax + index * 2 * batch.tokens;
    const Head head{batch.tokens,     batch.width,      scale,
                    of(batch.qkv, 0), of(batch.qkv, 1), of(batch.qkv, 2),
                    mixed(batch, batch.out, index), most, most + batch.tokens};
    if (!batch.dqkv) return forward(head, room);
    backward(head, mixed(batch, batch.dout, index), of(batch.dqkv, 0), of(batch.dqkv, 1), of(batch.dqkv, 2), room);
}
}
