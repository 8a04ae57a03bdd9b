// The message block and its adjoint, for many atoms, with filters from tensor cores: see radial.cuh.
//
// One warp an atom and 32 channels, 16 pairs at a time. Block b owns the channels of slice b mod SLICES, keeps their filter weights in
// its shared memory and walks over atoms, as many at once as it has warps: they are neighbours, and so are the pairs that
// they gather. Sums: lane g, of eight, adds the pairs 16 n + g and 16 n + 8 + g of the row in order, then the lanes are added; so
// the grid changes no bit.
#include "radial.cuh"

// As many as the registers allow; the host has the same numbers.
#define MESSAGE_THREADS (FEATURES == 128 && !STUDENT ? 384 : 256)
#define ADJOINT_THREADS 256
#define RADIAL_MEMORY (FILTER_TILES * 64 + FUNCTIONS / 2)

// The formulas are those of message.cu.
template <bool FIRST>
__device__ inline void messages(const Parameters& p, const Filter& filters, const float* x, const float* mu, const float* q,
                                float* q_out, float* mu_out)
{
    __shared__ float4 memory[RADIAL_MEMORY];
    if (p.control->status != 0) return;
    int slice = blockIdx.x % SLICES, warps = blockDim.x / 32;
    Radial radial = stage(filters, slice, memory);
    __syncthreads();
    int lane = warp_lane(), g = lane / 4, channel = slice * 32 + lane % 4 * 4;
    // Lanes of odd pairs begin with the other 16 channels: eight lanes then read from all banks of the cache.
    bool odd = g & 1;
    int here = odd ? 16 : 0, there = 16 - here;
    for (int own = blockIdx.x / SLICES * warps + threadIdx.x / 32; own < p.atoms; own += gridDim.x / SLICES * warps) {
        int atom = atom_of(p, own);
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
        float4 sum[8];
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] = zero4();
#pragma unroll 1
        for (unsigned at = begin; at < end; at += 16) {
            Pair low, high;
            load_pair(p, min(at + g, end - 1), low);
            load_pair(p, min(at + g + 8, end - 1), high);
            Factor value_low, value_high, none;
            functions_of<false>(radial, low, at + g < end, value_low, none);
            functions_of<false>(radial, high, at + g + 8 < end, value_high, none);
            const float* xl = x + (long long)sender_row(p, FIRST, low.neighbor) * SENDER_WIDTH + channel;
            const float* xh = x + (long long)sender_row(p, FIRST, high.neighbor) * SENDER_WIDTH + channel;
            const float* ml = mu + (long long)low.neighbor * 3 * FEATURES + channel;
            const float* mh = mu + (long long)high.neighbor * 3 * FEATURES + channel;
            Turned w = turned_filter(radial, value_low, value_high, 0, odd);
            sum[0] = fma4(w.high[0], load4(xh + here), fma4(w.low[0], load4(xl + here), sum[0]));
            sum[4] = fma4(w.high[1], load4(xh + there), fma4(w.low[1], load4(xl + there), sum[4]));
            w = turned_filter(radial, value_low, value_high, 1, odd);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                float4* s = sum + 4 * n;
                int at = n == 0 ? here : there;
                if (!STUDENT) {
                    w.low[n] = mul(w.low[n], load4(xl + FEATURES + at));
                    w.high[n] = mul(w.high[n], load4(xh + FEATURES + at));
                }
                s[1] = fma4(high.ux, w.high[n], fma4(low.ux, w.low[n], s[1]));
                s[2] = fma4(high.uy, w.high[n], fma4(low.uy, w.low[n], s[2]));
                s[3] = fma4(high.uz, w.high[n], fma4(low.uz, w.low[n], s[3]));
            }
            if (FIRST) continue;
            w = turned_filter(radial, value_low, value_high, 2, odd);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                int at = n == 0 ? here : there;
                if (!STUDENT) {
                    w.low[n] = mul(w.low[n], load4(xl + 2 * FEATURES + at));
                    w.high[n] = mul(w.high[n], load4(xh + 2 * FEATURES + at));
                }
#pragma unroll
                for (int k = 0; k < 3; k++) {
                    const float *vl = ml + k * FEATURES + at, *vh = mh + k * FEATURES + at;
                    sum[4 * n + 1 + k] = fma4(w.high[n], load4(vh), fma4(w.low[n], load4(vl), sum[4 * n + 1 + k]));
                }
            }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) exchange_if(odd, sum[k], sum[k + 4]);
        // Each lane keeps one of the eight sums: of T by its fifth bit, of (s, m0, m1, m2) by the next two.
#pragma unroll
        for (int k = 0; k < 4; k++) sum[k] = keep_half(sum[k], sum[k + 4], 16);
        sum[0] = keep_half(sum[0], sum[2], 8);
        sum[1] = keep_half(sum[1], sum[3], 8);
        float4 result = scale(filters.unit, keep_half(sum[0], sum[1], 4));
        int which = lane / 4 % 4, from = channel + (lane & 16);
        long long scalars = (long long)own * FEATURES + from, vectors = ((long long)own * 3 + which - 1) * FEATURES + from;
        // q and q_out may be one array.
        const float* scalar = q + (long long)sender_row(p, FIRST, own) * FEATURES + from;
        float4 before = which == 0 ? *(const float4*)scalar : FIRST ? zero4() : load4(mu + vectors);
        store4(which == 0 ? q_out + scalars : mu_out + vectors, add(before, result));
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, 1)
messages_first(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* q, float* q_out,
               float* mu_out)
{
    messages<true>(p, filter, x, mu, q, q_out, mu_out);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, 1)
messages_next(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* q, float* q_out,
              float* mu_out)
{
    messages<false>(p, filter, x, mu, q, q_out, mu_out);
}

// What a pair's ends exchange in the adjoint, four channels: g_q,i and g_μ,i.
struct Centre {
    float4 g, h0, h1, h2;
};

__device__ inline Centre centre(const float* gq, const float* gmu, unsigned row, int channel)
{
    // 32 bits are enough for what fits into any memory, and leave registers to others.
    const float* h = gmu + (row * 3 * FEATURES + channel);
    return {load4(gq + (row * FEATURES + channel)), load4(h), load4(h + FEATURES), load4(h + 2 * FEATURES)};
}

// sum + a · b.
__device__ inline float dot4(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// The directed pair's û points the other way, hence the sign.
__device__ inline float4 against(const Pair& pair, const Centre& i)
{
    return fma4(-pair.uz, i.h2, fma4(-pair.uy, i.h1, scale(-pair.ux, i.h0)));
}

// From a sender's sums over its pairs, Σ W^q g_q, Σ W^R (û·g_μ) and the three of Σ W^μ g_μ, for both T, to the gradients of what it
// sent, whose x^μ and μ do not depend on the pair.
__device__ inline void give_back(float4* sum, const float4 (*sent)[8], float unit, long long own, int channel, const float* gq,
                                 const float* gmu, float* gx, float* gq_out, float* gmu_out)
{
    int lane = warp_lane(), place = lane % 4 + (lane & 16) / 4, k = lane / 4 % 4;
    // The fifth bit of a lane chooses T.
#pragma unroll
    for (int n = 0; n < 5; n++) {
        float4 s = keep_half(sum[n], sum[n + 5], 16);
#pragma unroll
        for (int offset = 8; offset > 2; offset >>= 1) {
            s.x += __shfl_xor_sync(FULL, s.x, offset);
            s.y += __shfl_xor_sync(FULL, s.y, offset);
            s.z += __shfl_xor_sync(FULL, s.z, offset);
            s.w += __shfl_xor_sync(FULL, s.w, offset);
        }
        sum[n] = scale(unit, s);
    }
    if (k == 3) return;
    channel += lane & 16;
    long long scalars = own * FEATURES + channel, vectors = (3 * own + k) * FEATURES + channel;
    float4 turned = mul(sent[2][place], k == 0 ? sum[2] : k == 1 ? sum[3] : sum[4]);
    store4(gmu_out + vectors, add(load4(gmu + vectors), turned));
    float4 along = fma4(sent[5][place], sum[4], fma4(sent[4][place], sum[3], mul(sent[3][place], sum[2])));
    if (!STUDENT) store4(gx + vectors, k == 0 ? sum[0] : k == 1 ? sum[1] : along);
    else if (k == 0) store4(gq_out + scalars, add(load4(gq + scalars), sum[0]));
}

template <bool FIRST>
__device__ inline void messages_adjoint(const Parameters& p, const Filter& filters, const float* x, const float* mu,
                                        const float* gq, const float* gmu, float* gx, float* gq_out, float* gmu_out,
                                        int more)
{
    __shared__ float4 memory[RADIAL_MEMORY];
    // What a warp's atom sends: x^q, x^R, x^μ and the three components of μ.
    __shared__ float4 senders[ADJOINT_THREADS / 32][6][8];
    if (p.control->status != 0) return;
    int slice = blockIdx.x % SLICES, warps = blockDim.x / 32;
    Radial radial = stage(filters, slice, memory);
    __syncthreads();
    int lane = warp_lane(), g = lane / 4, c = lane % 4, channel = slice * 32 + 4 * c;
    float4(*sent)[8] = senders[threadIdx.x / 32];
    for (int own = blockIdx.x / SLICES * warps + threadIdx.x / 32; own < p.atoms; own += gridDim.x / SLICES * warps) {
        int atom = atom_of(p, own);
        long long vectors = (long long)own * 3 * FEATURES;
        __syncwarp();
        {
            int at = slice * 32 + lane % 8 * 4;
            Sender whole = sender(FIRST, x + (long long)sender_row(p, FIRST, own) * SENDER_WIDTH + at, mu + vectors + at);
            float4 parts[6] = {whole.xq, whole.xr, whole.xm, whole.v0, whole.v1, whole.v2};
#pragma unroll
            for (int k = 0; k < 6; k++)
                if (lane / 8 == k % 4) sent[k][lane % 8] = parts[k];
        }
        __syncwarp();
        float4 sum[10];
#pragma unroll
        for (int k = 0; k < 10; k++) sum[k] = zero4();
        unsigned begin = p.rows[atom], end = begin + p.inside[atom];
#pragma unroll 1
        for (unsigned at = begin; at < end; at += 16) {
            Pair low, high;
            load_pair(p, min(at + g, end - 1), low);
            load_pair(p, min(at + g + 8, end - 1), high);
            Factor of_low[2], of_high[2]; // for W and for W'
            functions_of<true>(radial, low, at + g < end, of_low[0], of_low[1]);
            functions_of<true>(radial, high, at + g + 8 < end, of_high[0], of_high[1]);
            // dE/dd and dE/dû of both pairs.
            float4 pull_low = zero4(), pull_high = zero4();
#pragma unroll
            for (int T = 0; T < 2; T++) {
                float4* s = sum + 5 * T;
                const int place = 4 * T;
                Centre il = centre(gq, gmu, low.neighbor, channel + 16 * T);
                Centre ih = centre(gq, gmu, high.neighbor, channel + 16 * T);

                // Gradients of what is sent along the pair; then those of the pair.
                float4 own_part = sent[0][place + c];
                Both w, slope;
                filter_and_slope(radial, of_low, of_high, 0, T, w, slope);
                pull_low.x = dot4(slope.low, mul(own_part, il.g), pull_low.x);
                pull_high.x = dot4(slope.high, mul(own_part, ih.g), pull_high.x);
                if (!FIRST) s[0] = fma4(w.high, ih.g, fma4(w.low, il.g, s[0]));

                float4 ul = against(low, il), uh = against(high, ih);
                own_part = sent[1][place + c];
                filter_and_slope(radial, of_low, of_high, 1, T, w, slope);
                pull_low.x = dot4(slope.low, mul(own_part, ul), pull_low.x);
                pull_high.x = dot4(slope.high, mul(own_part, uh), pull_high.x);
                if (!FIRST) s[1] = fma4(w.high, uh, fma4(w.low, ul, s[1]));
                w = {mul(w.low, own_part), mul(w.high, own_part)};
                pull_low.y = dot4(w.low, il.h0, pull_low.y);
                pull_low.z = dot4(w.low, il.h1, pull_low.z);
                pull_low.w = dot4(w.low, il.h2, pull_low.w);
                pull_high.y = dot4(w.high, ih.h0, pull_high.y);
                pull_high.z = dot4(w.high, ih.h1, pull_high.z);
                pull_high.w = dot4(w.high, ih.h2, pull_high.w);
                if (FIRST) continue;

                float4 v0 = sent[3][place + c], v1 = sent[4][place + c], v2 = sent[5][place + c];
                float4 ml = fma4(v2, il.h2, fma4(v1, il.h1, mul(v0, il.h0)));
                float4 mh = fma4(v2, ih.h2, fma4(v1, ih.h1, mul(v0, ih.h0)));
                own_part = sent[2][place + c];
                filter_and_slope(radial, of_low, of_high, 2, T, w, slope);
                pull_low.x = dot4(slope.low, mul(own_part, ml), pull_low.x);
                pull_high.x = dot4(slope.high, mul(own_part, mh), pull_high.x);
                s[2] = fma4(w.high, ih.h0, fma4(w.low, il.h0, s[2]));
                s[3] = fma4(w.high, ih.h1, fma4(w.low, il.h1, s[3]));
                s[4] = fma4(w.high, ih.h2, fma4(w.low, il.h2, s[4]));
            }
            // Sums over the four lanes of a pair: the upper two keep those of the second pair, the odd ones the last two numbers.
            float4 pull = keep_half(pull_low, pull_high, 2);
            bool odd = lane & 1;
            float first = odd ? pull.z : pull.x, second = odd ? pull.w : pull.y;
            first += __shfl_xor_sync(FULL, odd ? pull.x : pull.z, 1);
            second += __shfl_xor_sync(FULL, odd ? pull.y : pull.w, 1);
            unsigned mine = at + g + (lane & 2 ? 8 : 0);
            if (mine < end) {
                float* to = (float*)(p.gradients + slice * p.capacity + __ldg(&p.pairs[mine].entry)) + (odd ? 2 : 0);
                float before0 = more ? to[0] : 0.0f, before1 = more ? to[1] : 0.0f;
                to[0] = before0 + first * filters.unit;
                to[1] = before1 + second * filters.unit;
            }
        }
        if (!FIRST) give_back(sum, sent, filters.unit, own, channel, gq, gmu, gx, gq_out, gmu_out);
    }
}

extern "C" __global__ void __launch_bounds__(ADJOINT_THREADS, 1)
adjoint_first(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
              const float* gmu, float* gx, float* gq_out, float* gmu_out, int more)
{
    messages_adjoint<true>(p, filter, x, mu, gq, gmu, gx, gq_out, gmu_out, more);
}

extern "C" __global__ void __launch_bounds__(ADJOINT_THREADS, 1)
adjoint_next(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
             const float* gmu, float* gx, float* gq_out, float* gmu_out, int more)
{
    messages_adjoint<false>(p, filter, x, mu, gq, gmu, gx, gq_out, gmu_out, more);
}
