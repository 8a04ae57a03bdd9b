// Radial filters on tensor cores, straight from the radial functions: W = Σ_k A_k φ_k f_c + b f_c, its slope from φ_k' likewise,
// with Gaussians φ_k = exp(-γ_k (d - m_k)²) and f_c = ½ (cos(π d / r_c) + 1). For many atoms a table of W would come through
// the caches for every pair and channel; this way a pair's 20 functions serve all channels.
//
// A warp makes W for 16 pairs and 32 channels at a time. Factors are 16 bits wide: each is split into hi + lo, and
// lo·hi + hi·lo + hi·hi is summed, which leaves out less than float32's rounding. With g = lane / 4 and c = lane % 4 a lane gives
// the functions c, c + 4, … c + 16 of the pairs g and g + 8, and has four neighbouring channels of both: 16 T + 4 c and on, for
// T = 0, 1. src/backend/cuda/radial.rs packs the weights to match.
#pragma once
#include "rows.cuh"

// Most radial functions: with f_c they fill four products of 16 inputs.
#define FUNCTIONS 20
#define FILTER_TILES 12

// What the block keeps in shared memory.
struct Radial {
    const uint4* weights;    // [3][4][48]: 32 lanes' `first`, then their `second`
    const float2* functions; // [FUNCTIONS]: m_k (Å) and γ_k / ln 2 (Å⁻²)
};

// Copies a slice's weights and the functions; the block must wait before it uses them. 128 bits of `memory` for each of
// FILTER_TILES * 48 + FUNCTIONS / 2.
__device__ inline Radial stage(const Filter& filter, int slice, float4* memory)
{
    const int weights = FILTER_TILES * 48;
    for (int k = threadIdx.x; k < weights + FUNCTIONS / 2; k += blockDim.x)
        memory[k] = k < weights ? load4((const float*)(filter.weights + slice * weights + k))
                                : load4((const float*)filter.functions + 4 * (k - weights));
    return {(const uint4*)memory, (const float2*)(memory + weights)};
}

// A lane's part of the left factor for one pair, two halves each: lo of its functions 0, 1 and 2, 3; hi of the same; hi of its
// function 4 twice; lo of it, and what goes with the bias.
struct Factor {
    unsigned part[6];
};

// From values of the lane's five functions and of f_c.
__device__ inline Factor factor(const float* v, float cutoff)
{
    int c = warp_lane() % 4;
    unsigned hi01 = pack_halves(v[0], v[1]), hi23 = pack_halves(v[2], v[3]), hi4 = pack_halves(v[4], cutoff);
    float low = cutoff - upper_half(hi4), rest = c == 2 ? low : cutoff;
    Factor f;
    f.part[0] = pack_halves(v[0] - lower_half(hi01), v[1] - upper_half(hi01));
    f.part[1] = pack_halves(v[2] - lower_half(hi23), v[3] - upper_half(hi23));
    f.part[2] = hi01;
    f.part[3] = hi23;
    f.part[4] = pack_halves(v[4], v[4]);
    f.part[5] = pack_halves(v[4] - lower_half(hi4), rest);
    return f;
}

// The left factors of a pair: for W and, where it is asked for, for W'. All zero for zeros in place of a pair.
template <bool SLOPE>
__device__ inline void functions_of(const Radial& radial, const Pair& pair, Factor& value, Factor& slope)
{
    const float minus_two_ln2 = -1.38629436f;
    float fc = pair.inside, dfc = pair.slope;
    float v[5], s[5];
#pragma unroll
    for (int k = 0; k < 5; k++) {
        float2 f = radial.functions[warp_lane() % 4 + 4 * k];
        float t = pair.distance - f.x, scaled = t * f.y, e = two_to(-(t * scaled));
        v[k] = e * fc;
        s[k] = e * fmaf(minus_two_ln2 * scaled, fc, dfc);
    }
    value = factor(v, fc);
    if (SLOPE) slope = factor(s, dfc);
}

// Four neighbouring channels of the pairs g and g + 8.
struct Both {
    float4 low, high;
};

// The two right factors of 8 columns, as they lie in shared memory.
struct Right {
    uint4 first;
    uint2 second;
};

__device__ inline Right right_factor(const uint4* at) { return {at[warp_lane()], ((const uint2*)(at + 32))[warp_lane()]}; }

__device__ inline Right right_factor(const Radial& radial, int third, int tile)
{
    return right_factor(radial.weights + (third * 4 + tile) * 48);
}

__device__ inline float4 product(const Factor& low, const Factor& high, const Right& right)
{
    float4 sum = zero4();
    add_half_product(sum, low.part[0], high.part[0], low.part[1], high.part[1], right.first.x, right.first.y);
    add_half_product(sum, low.part[2], high.part[2], low.part[3], high.part[3], right.first.z, right.first.w);
    add_half_product(sum, low.part[2], high.part[2], low.part[3], high.part[3], right.first.x, right.first.y);
    add_half_product(sum, low.part[4], high.part[4], low.part[5], high.part[5], right.second.x, right.second.y);
    return sum;
}

__device__ inline Both both(float4 a, float4 b) { return {make_float4(a.x, a.y, b.x, b.y), make_float4(a.z, a.w, b.z, b.w)}; }

// One third of the filter, channels 16 T + 4 c and on.
__device__ inline Both filter(const Radial& radial, const Factor& low, const Factor& high, int third, int T)
{
    float4 a = product(low, high, right_factor(radial, third, 2 * T));
    return both(a, product(low, high, right_factor(radial, third, 2 * T + 1)));
}

// The same for a pair's value and slope.
__device__ inline void filter_and_slope(const Radial& radial, const Factor* low, const Factor* high, int third, int T, Both& value,
                                        Both& slope)
{
    Right right = right_factor(radial, third, 2 * T);
    float4 v = product(low[0], high[0], right), s = product(low[1], high[1], right);
    right = right_factor(radial, third, 2 * T + 1);
    value = both(v, product(low[0], high[0], right));
    slope = both(s, product(low[1], high[1], right));
}

__device__ inline void exchange_if(bool yes, float4& a, float4& b)
{
    float4 first = a;
    if (yes) {
        a = b;
        b = first;
    }
}

// One third of the filter for both T, the second T first if it is to be turned.
struct Turned {
    float4 low[2], high[2];
};

__device__ inline Turned turned_filter(const Radial& radial, const Factor& low, const Factor& high, int third, bool turn)
{
    Both a = filter(radial, low, high, third, 0), b = filter(radial, low, high, third, 1);
    exchange_if(turn, a.low, b.low);
    exchange_if(turn, a.high, b.high);
    return {{a.low, b.low}, {a.high, b.high}};
}

// Adds up two numbers between lanes that are `offset` apart; each keeps one sum: the upper of the two lanes that of `other`.
__device__ inline float4 keep_half(float4 mine, float4 other, int offset)
{
    bool upper = warp_lane() & offset;
    float4 keep = upper ? other : mine, give = upper ? mine : other;
    keep.x += __shfl_xor_sync(FULL, give.x, offset);
    keep.y += __shfl_xor_sync(FULL, give.y, offset);
    keep.z += __shfl_xor_sync(FULL, give.z, offset);
    keep.w += __shfl_xor_sync(FULL, give.w, offset);
    return keep;
}
