// The message block and its adjoint, for all atoms.
//
// One warp an atom and 32 channels: 8 lanes × 4 channels, 4 pairs at a time, every gather a whole 128-byte line. Block b
// owns the channels of slice b mod SLICES and, with TABLE_SHARED, keeps their table in its shared memory
// ([intervals + 3][3][32] floats) while it walks over atoms. Sums: each quarter of a warp adds every fourth pair of the
// row in order, then the quarters are added; so neither grid nor table's place changes a bit.
#include "table.cuh"

// For few atoms registers buy loads in flight, for many they would cost warps.
#define MESSAGE_THREADS (TABLE_SHARED ? 384 : 128)
#define MESSAGE_BLOCKS (TABLE_SHARED || SPLIT ? 1 : 4)
#define PAIRS_AT_ONCE (SPLIT ? 2 : 1)

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
    for (int own = blockIdx.x / SLICES * warps + threadIdx.x / 32; own < p.atoms; own += gridDim.x / SLICES * warps) {
        int atom = atom_of(p, own);
        Message sum = {zero4(), zero4(), zero4(), zero4()};
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
#pragma unroll PAIRS_AT_ONCE
        for (unsigned at = begin + quarter; at < end; at += 4) {
            Pair pair;
            load_pair(p, at, pair);
            const float* xj = x + (long long)sender_row(p, FIRST, pair.neighbor) * SENDER_WIDTH + channel;
            const float* mj = mu + (long long)pair.neighbor * 3 * FEATURES + channel;
            add_message(FIRST, pair, per_angstrom, table + (long long)pair.interval * 96 + c4, xj, mj, sum);
        }
        float4 s = add_groups(sum.s, 8), m0 = add_groups(sum.m0, 8), m1 = add_groups(sum.m1, 8), m2 = add_groups(sum.m2, 8);
        // Each quarter writes one of the four results.
        long long scalars = (long long)own * FEATURES + channel;
        long long vectors = (long long)own * 3 * FEATURES + channel + (quarter - 1) * FEATURES;
        float4 result = quarter == 0 ? s : quarter == 1 ? m0 : quarter == 2 ? m1 : m2;
        // q and q_out may be one array.
        const float* scalar = q + (long long)sender_row(p, FIRST, own) * FEATURES + channel;
        float4 before = quarter == 0 ? *(const float4*)scalar : FIRST ? zero4() : load4(mu + vectors);
        store4(quarter == 0 ? q_out + scalars : mu_out + vectors, add(before, result));
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
messages_first(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* q, float* q_out,
               float* mu_out)
{
    messages<true>(p, filter.table, x, mu, q, q_out, mu_out);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
messages_next(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* q, float* q_out,
               float* mu_out)
{
    messages<false>(p, filter.table, x, mu, q, q_out, mu_out);
}

// The adjoint, at the sender j (the warp's atom), from the gradients of the centres i that it sends to:
//   gx_j     = (Σ_i W^q g_q,i, Σ_i W^R (û·g_μ,i), Σ_i W^μ (μ_j·g_μ,i))     painn, [N][3F]
//   gq_out,j = g_q,j + Σ_i W^q g_q,i                                       student, whose x^q is q
//   gmu_out,j = g_μ,j + Σ_i W^μ x^μ_j g_μ,i
//   gradients of each pair of the row gain dE/dd and dE/dû of (i <- j); the last layer's come first and set them.
// FIRST: no position reaches the embedding, so only the gradients of pairs are asked for.
template <bool FIRST>
__device__ inline void messages_adjoint(const Parameters& p, const float* all, const float* x, const float* mu,
                                        const float* gq, const float* gmu, float* gx, float* gq_out, float* gmu_out,
                                        int more)
{
    if (p.control->status != 0) return;
    int slice = blockIdx.x % SLICES, warps = blockDim.x / 32;
    const float* table = own_table(p, all, slice);
    int lane = warp_lane(), quarter = lane >> 3, c4 = (lane & 7) * 4, channel = slice * 32 + c4;
    float per_angstrom = (float)(1.0 / p.spacing);
    float* gradients = (float*)(p.gradients + (long long)slice * p.capacity);
    for (int own = blockIdx.x / SLICES * warps + threadIdx.x / 32; own < p.atoms; own += gridDim.x / SLICES * warps) {
        int atom = atom_of(p, own);
        long long scalars = (long long)own * FEATURES + channel, vectors = (long long)own * 3 * FEATURES + channel;
        Sender sent = sender(FIRST, x + (long long)sender_row(p, FIRST, own) * SENDER_WIDTH + channel, mu + vectors);
        Gathered sum = {zero4(), zero4(), zero4(), zero4(), zero4(), zero4()};
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
#pragma unroll PAIRS_AT_ONCE
        for (unsigned first = begin; first < end; first += 4) {
            bool on = first + quarter < end;
            Pair pair;
            load_pair(p, on ? first + quarter : end - 1, pair);
            const float* gi = gmu + (long long)pair.neighbor * 3 * FEATURES + channel;
            float4 g = load4(gq + (long long)pair.neighbor * FEATURES + channel);
            float4 h0 = load4(gi), h1 = load4(gi + FEATURES), h2 = load4(gi + 2 * FEATURES);
            if (!on) g = h0 = h1 = h2 = zero4();
            const float* row = table + (long long)pair.interval * 96 + c4;
            float4 r = add_adjoint(FIRST, pair, per_angstrom, row, sent, g, h0, h1, h2, sum);
            // Four sums over the quarter's 8 lanes in four exchanges: each halving sends what the other half keeps.
            bool upper = lane & 4;
            float keep0 = upper ? r.z : r.x, keep1 = upper ? r.w : r.y;
            keep0 += __shfl_xor_sync(FULL, upper ? r.x : r.z, 4);
            keep1 += __shfl_xor_sync(FULL, upper ? r.y : r.w, 4);
            bool odd = lane & 2;
            float keep = odd ? keep1 : keep0;
            keep += __shfl_xor_sync(FULL, odd ? keep0 : keep1, 2);
            keep += __shfl_xor_sync(FULL, keep, 1);
            if (on && !(lane & 1)) {
                float* to = gradients + 4ll * pair.entry + (upper ? 2 : 0) + (odd ? 1 : 0);
                *to = more ? *to + keep : keep;
            }
        }
        if (FIRST) continue;
        float4 sq = add_groups(sum.sq, 8), sr = add_groups(sum.sr, 8), sm = add_groups(sum.sm, 8);
        float4 s0 = add_groups(sum.s0, 8), s1 = add_groups(sum.s1, 8), s2 = add_groups(sum.s2, 8);
        // Quarters 1 to 3 write the vectors' gradient, quarter 0 the senders'.
        if (quarter > 0) {
            long long at = vectors + (quarter - 1) * FEATURES;
            store4(gmu_out + at, add(load4(gmu + at), quarter == 1 ? s0 : quarter == 2 ? s1 : s2));
        } else if (STUDENT) {
            store4(gq_out + scalars, add(load4(gq + scalars), sq));
        } else {
            store4(gx + vectors, sq);
            store4(gx + vectors + FEATURES, sr);
            store4(gx + vectors + 2 * FEATURES, sm);
        }
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
adjoint_first(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
              const float* gmu, float* gx, float* gq_out, float* gmu_out, int more)
{
    messages_adjoint<true>(p, filter.table, x, mu, gq, gmu, gx, gq_out, gmu_out, more);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, MESSAGE_BLOCKS)
adjoint_next(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
             const float* gmu, float* gx, float* gq_out, float* gmu_out, int more)
{
    messages_adjoint<false>(p, filter.table, x, mu, gq, gmu, gx, gq_out, gmu_out, more);
}
