// The message block and its adjoint. What a pair needs of the filter comes from the cubic B-spline table; both
// architectures share the code, a student merely sends (q, 1, 1).
//
// One warp an atom and 32 channels: 8 lanes × 4 channels, 4 pairs at a time, every gather a whole 128-byte line. Block b
// owns the channels of slice b mod SLICES and, with TABLE_SHARED, keeps their table in its shared memory
// ([intervals + 3][3][32] floats) while it walks over atoms. Sums: each quarter of a warp adds every fourth pair of the
// row in order, then the quarters are added; so neither grid nor table's place changes a bit.
#include "common.cuh"

#define SENDER_WIDTH (STUDENT ? FEATURES : 3 * FEATURES)
// For few atoms registers buy loads in flight, for many they would cost warps.
#define MESSAGE_THREADS (TABLE_SHARED ? 384 : 128)
#define MESSAGE_BLOCKS (TABLE_SHARED || FEW ? 1 : 4)
#define PAIRS_AT_ONCE (FEW ? 2 : 1)

// Through the read-only path: nothing that is read like this is written by the same kernel, so that loads of the next
// pairs may overtake stores.
__device__ inline float4 load4(const float* p) { return __ldg((const float4*)p); }
__device__ inline void store4(float* p, float4 v) { *(float4*)p = v; }
__device__ inline float4 zero4() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
__device__ inline float4 mul(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ inline float4 scale(float a, float4 b) { return make_float4(a * b.x, a * b.y, a * b.z, a * b.w); }
__device__ inline float4 sub(float4 a, float4 b) { return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w); }
__device__ inline float4 fma4(float4 a, float4 b, float4 c)
{
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
__device__ inline float4 fma4(float a, float4 b, float4 c)
{
    return make_float4(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y), fmaf(a, b.z, c.z), fmaf(a, b.w, c.w));
}
__device__ inline float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

// Adds the four quarters of a warp.
__device__ inline float4 add_quarters(float4 v)
{
    for (int offset = 8; offset < 32; offset <<= 1) {
        v.x += __shfl_xor_sync(FULL, v.x, offset);
        v.y += __shfl_xor_sync(FULL, v.y, offset);
        v.z += __shfl_xor_sync(FULL, v.z, offset);
        v.w += __shfl_xor_sync(FULL, v.w, offset);
    }
    return v;
}

// Weights of the four coefficients for W, and of their three differences for W' (already per Å).
struct Spline {
    float w0, w1, w2, w3, e0, e1, e2;
};

__device__ inline Spline spline(float u, float per_angstrom)
{
    const float sixth = 1.0f / 6.0f, two_thirds = 2.0f / 3.0f;
    float v = 1.0f - u;
    Spline s;
    s.w0 = v * v * v * sixth;
    s.w1 = u * u * (0.5f * u - 1.0f) + two_thirds;
    s.w2 = v * v * (0.5f * v - 1.0f) + two_thirds;
    s.w3 = u * u * u * sixth;
    s.e0 = 0.5f * v * v * per_angstrom;
    s.e1 = (0.5f + u * v) * per_angstrom;
    s.e2 = 0.5f * u * u * per_angstrom;
    return s;
}

// Coefficients of one third of the filter, four channels, for the pair's interval.
struct Coefficients {
    float4 c0, c1, c2, c3;
};

__device__ inline Coefficients coefficients(const float* row)
{
#if TABLE_SHARED
    // The read-only path leads to global memory alone.
    const float4* at = (const float4*)row;
    return {at[0], at[24], at[48], at[72]};
#else
    return {load4(row), load4(row + 96), load4(row + 192), load4(row + 288)};
#endif
}

__device__ inline float4 value(const Spline& s, const Coefficients& c)
{
    return fma4(s.w3, c.c3, fma4(s.w2, c.c2, fma4(s.w1, c.c1, scale(s.w0, c.c0))));
}

__device__ inline float4 slope(const Spline& s, const Coefficients& c)
{
    return fma4(s.e2, sub(c.c3, c.c2), fma4(s.e1, sub(c.c2, c.c1), scale(s.e0, sub(c.c1, c.c0))));
}

// The table of this block's channels: in shared memory, or where it lies. Layout of `all`: [slice][intervals + 3][3][32].
__device__ inline const float* own_table(const Parameters& p, const float* all, int slice)
{
    const float* own = all + (long long)slice * (p.intervals + 3) * 96;
#if TABLE_SHARED
    DYNAMIC_SHARED(float4, shared);
    for (int k = threadIdx.x; k < (p.intervals + 3) * 24; k += blockDim.x) shared[k] = ((const float4*)own)[k];
    __syncthreads();
    return (const float*)shared;
#else
    return own;
#endif
}

// The row of what an atom sends: in the first layer that of its element.
template <bool FIRST> __device__ inline int sender_row(const Parameters& p, int atom)
{
    return FIRST ? __ldg(p.species + atom) : atom;
}

__device__ inline void load_pair(const Parameters& p, unsigned at, Pair& pair)
{
    ((int4*)&pair)[0] = __ldg((const int4*)(p.pairs + at));
    ((float4*)&pair)[1] = __ldg((const float4*)(p.pairs + at) + 1);
}

// q_i += Σ_j W^q x^q_j,  μ_i,c += Σ_j W^R x^R_j û_c + W^μ x^μ_j μ_j,c.
// x: what atoms send, [N][3F] (student: their q, [N][F]); mu: μ before, [N][3][F]; q: before, [N][F]; out likewise.
// FIRST: every μ is zero before, and x and q have a row for each element instead of each atom.
template <bool FIRST>
__device__ inline void messages(const Parameters& p, const float* all, const float* x, const float* mu, const float* q,
                                float* q_out, float* mu_out)
{
    if (p.control->status != 0) return;
    int slice = blockIdx.x % SLICES, warps = blockDim.x / 32;
    const float* table = own_table(p, all, slice);
    int lane = warp_lane(), quarter = lane >> 3, c4 = (lane & 7) * 4, channel = slice * 32 + c4;
    float per_angstrom = (float)(1.0 / p.spacing);
    for (int atom = blockIdx.x / SLICES * warps + threadIdx.x / 32; atom < p.atoms; atom += gridDim.x / SLICES * warps) {
        float4 s = zero4(), m0 = zero4(), m1 = zero4(), m2 = zero4();
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
#pragma unroll PAIRS_AT_ONCE
        for (unsigned at = begin + quarter; at < end; at += 4) {
            Pair pair;
            load_pair(p, at, pair);
            Spline weights = spline(pair.fraction, per_angstrom);
            const float* row = table + (long long)pair.interval * 96 + c4;
            const float* xj = x + (long long)sender_row<FIRST>(p, pair.neighbor) * SENDER_WIDTH + channel;
            s = fma4(value(weights, coefficients(row)), load4(xj), s);
            float4 radial = value(weights, coefficients(row + 32));
            if (!STUDENT) radial = mul(radial, load4(xj + FEATURES));
            m0 = fma4(pair.ux, radial, m0);
            m1 = fma4(pair.uy, radial, m1);
            m2 = fma4(pair.uz, radial, m2);
            if (!FIRST) {
                float4 turned = value(weights, coefficients(row + 64));
                if (!STUDENT) turned = mul(turned, load4(xj + 2 * FEATURES));
                const float* mj = mu + (long long)pair.neighbor * 3 * FEATURES + channel;
                m0 = fma4(turned, load4(mj), m0);
                m1 = fma4(turned, load4(mj + FEATURES), m1);
                m2 = fma4(turned, load4(mj + 2 * FEATURES), m2);
            }
        }
        s = add_quarters(s);
        m0 = add_quarters(m0);
        m1 = add_quarters(m1);
        m2 = add_quarters(m2);
        // Each quarter writes one of the four results.
        long long scalars = (long long)atom * FEATURES + channel;
        long long vectors = (long long)atom * 3 * FEATURES + channel + (quarter - 1) * FEATURES;
        float4 result = quarter == 0 ? s : quarter == 1 ? m0 : quarter == 2 ? m1 : m2;
        // q and q_out may be one array.
        const float* own = q + (long long)sender_row<FIRST>(p, atom) * FEATURES + channel;
        float4 before = quarter == 0 ? *(const float4*)own : FIRST ? zero4() : load4(mu + vectors);
        float4 after = make_float4(before.x + result.x, before.y + result.y, before.z + result.z, before.w + result.w);
        store4(quarter == 0 ? q_out + scalars : mu_out + vectors, after);
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
messages_first(Parameters p, const float* table, const float* x, const float* mu, const float* q, float* q_out, float* mu_out)
{
    messages<true>(p, table, x, mu, q, q_out, mu_out);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
messages_next(Parameters p, const float* table, const float* x, const float* mu, const float* q, float* q_out, float* mu_out)
{
    messages<false>(p, table, x, mu, q, q_out, mu_out);
}

// The adjoint, at the sender j (the warp's atom), from the gradients of the centres i that it sends to:
//   gx_j     = (Σ_i W^q g_q,i, Σ_i W^R (û·g_μ,i), Σ_i W^μ (μ_j·g_μ,i))     painn, [N][3F]
//   gq_out,j = g_q,j + Σ_i W^q g_q,i                                       student, whose x^q is q
//   gmu_out,j = g_μ,j + Σ_i W^μ x^μ_j g_μ,i
//   gradients of each pair of the row gain dE/dd and dE/dû of (i <- j); the last layer's come first and set them.
// A row's entry points from j to i, û of the directed pair from i to j, hence its sign.
// FIRST: no position reaches the embedding, so only the gradients of pairs are asked for.
template <bool FIRST>
__device__ inline void messages_adjoint(const Parameters& p, const float* all, const float* x, const float* mu,
                                        const float* gq, const float* gmu, float* gx, float* gq_out, float* gmu_out,
                                        int add)
{
    if (p.control->status != 0) return;
    int slice = blockIdx.x % SLICES, warps = blockDim.x / 32;
    const float* table = own_table(p, all, slice);
    int lane = warp_lane(), quarter = lane >> 3, c4 = (lane & 7) * 4, channel = slice * 32 + c4;
    float per_angstrom = (float)(1.0 / p.spacing);
    float* gradients = (float*)(p.gradients + (long long)slice * p.capacity);
    for (int atom = blockIdx.x / SLICES * warps + threadIdx.x / 32; atom < p.atoms; atom += gridDim.x / SLICES * warps) {
        const float* xj = x + (long long)sender_row<FIRST>(p, atom) * SENDER_WIDTH + channel;
        long long scalars = (long long)atom * FEATURES + channel, vectors = (long long)atom * 3 * FEATURES + channel;
        float4 ones = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        float4 xq = load4(xj), xr = STUDENT ? ones : load4(xj + FEATURES), xm = zero4();
        float4 v0 = zero4(), v1 = zero4(), v2 = zero4();
        if (!FIRST) {
            xm = STUDENT ? ones : load4(xj + 2 * FEATURES);
            v0 = load4(mu + vectors);
            v1 = load4(mu + vectors + FEATURES);
            v2 = load4(mu + vectors + 2 * FEATURES);
        }
        float4 sq = zero4(), sr = zero4(), sm = zero4(), s0 = zero4(), s1 = zero4(), s2 = zero4();
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
#pragma unroll PAIRS_AT_ONCE
        for (unsigned first = begin; first < end; first += 4) {
            bool on = first + quarter < end;
            Pair pair;
            load_pair(p, on ? first + quarter : end - 1, pair);
            Spline weights = spline(pair.fraction, per_angstrom);
            float ux = -pair.ux, uy = -pair.uy, uz = -pair.uz;
            const float* row = table + (long long)pair.interval * 96 + c4;
            const float* gi = gmu + (long long)pair.neighbor * 3 * FEATURES + channel;
            float4 g = load4(gq + (long long)pair.neighbor * FEATURES + channel);
            float4 h0 = load4(gi), h1 = load4(gi + FEATURES), h2 = load4(gi + 2 * FEATURES);
            if (!on) g = h0 = h1 = h2 = zero4();
            float4 ug = fma4(uz, h2, fma4(uy, h1, scale(ux, h0)));

            Coefficients c = coefficients(row);
            float4 along = mul(mul(slope(weights, c), xq), g);
            if (!FIRST) sq = fma4(value(weights, c), g, sq);

            c = coefficients(row + 32);
            float4 wr = value(weights, c);
            along = fma4(mul(slope(weights, c), xr), ug, along);
            if (!FIRST) sr = fma4(wr, ug, sr);
            float4 radial = mul(wr, xr);

            if (!FIRST) {
                float4 mg = fma4(v2, h2, fma4(v1, h1, mul(v0, h0)));
                c = coefficients(row + 64);
                float4 wm = value(weights, c);
                along = fma4(mul(slope(weights, c), xm), mg, along);
                sm = fma4(wm, mg, sm);
                float4 turned = mul(wm, xm);
                s0 = fma4(turned, h0, s0);
                s1 = fma4(turned, h1, s1);
                s2 = fma4(turned, h2, s2);
            }
            // Four sums over the quarter's 8 lanes in four exchanges: each halving sends what the other half keeps.
            float r0 = sum4(along), r1 = sum4(mul(radial, h0)), r2 = sum4(mul(radial, h1)), r3 = sum4(mul(radial, h2));
            bool upper = lane & 4;
            float keep0 = upper ? r2 : r0, keep1 = upper ? r3 : r1;
            keep0 += __shfl_xor_sync(FULL, upper ? r0 : r2, 4);
            keep1 += __shfl_xor_sync(FULL, upper ? r1 : r3, 4);
            bool odd = lane & 2;
            float keep = odd ? keep1 : keep0;
            keep += __shfl_xor_sync(FULL, odd ? keep0 : keep1, 2);
            keep += __shfl_xor_sync(FULL, keep, 1);
            if (on && !(lane & 1)) {
                float* to = gradients + 4ll * pair.entry + (upper ? 2 : 0) + (odd ? 1 : 0);
                *to = add ? *to + keep : keep;
            }
        }
        if (FIRST) continue;
        sq = add_quarters(sq);
        sr = add_quarters(sr);
        sm = add_quarters(sm);
        s0 = add_quarters(s0);
        s1 = add_quarters(s1);
        s2 = add_quarters(s2);
        // Quarters 1 to 3 write the vectors' gradient, quarter 0 the senders'.
        if (quarter > 0) {
            long long at = vectors + (quarter - 1) * FEATURES;
            float4 own = load4(gmu + at), sum = quarter == 1 ? s0 : quarter == 2 ? s1 : s2;
            store4(gmu_out + at, make_float4(own.x + sum.x, own.y + sum.y, own.z + sum.z, own.w + sum.w));
        } else if (STUDENT) {
            float4 own = load4(gq + scalars);
            store4(gq_out + scalars, make_float4(own.x + sq.x, own.y + sq.y, own.z + sq.z, own.w + sq.w));
        } else {
            store4(gx + vectors, sq);
            store4(gx + vectors + FEATURES, sr);
            store4(gx + vectors + 2 * FEATURES, sm);
        }
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
adjoint_first(Parameters p, const float* table, const float* x, const float* mu, const float* gq, const float* gmu,
              float* gx, float* gq_out, float* gmu_out, int add)
{
    messages_adjoint<true>(p, table, x, mu, gq, gmu, gx, gq_out, gmu_out, add);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
adjoint_next(Parameters p, const float* table, const float* x, const float* mu, const float* gq, const float* gmu,
             float* gx, float* gq_out, float* gmu_out, int add)
{
    messages_adjoint<false>(p, table, x, mu, gq, gmu, gx, gq_out, gmu_out, add);
}
