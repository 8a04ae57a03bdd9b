// What one pair adds to a message and to its adjoint, four channels at a time, with its filter from the cubic B-spline table.
#pragma once
#include "message.cuh"

// Adds the groups of `lanes` lanes of a warp.
__device__ inline float4 add_groups(float4 v, int lanes)
{
    for (int offset = lanes; offset < 32; offset <<= 1) {
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

// Sums over pairs: of scalars, and of the three components of vectors.
struct Message {
    float4 s, m0, m1, m2;
};

// Adds what pair (i <- j) brings to i:  s += W^q x^q_j,  m_c += W^R x^R_j û_c + W^μ x^μ_j μ_j,c; every μ is zero in the
// first layer. `row`: of the filter table; `xj`, `mj`: what j sends, and its μ.
__device__ inline void add_message(bool first, const Pair& pair, float per_angstrom, const float* row, const float* xj,
                                   const float* mj, Message& sum)
{
    Spline weights = spline(pair.fraction, per_angstrom);
    sum.s = fma4(value(weights, coefficients(row)), load_sent(xj), sum.s);
    float4 radial = value(weights, coefficients(row + 32));
    if (!STUDENT) radial = mul(radial, load_sent(xj + FEATURES));
    sum.m0 = fma4(pair.ux, radial, sum.m0);
    sum.m1 = fma4(pair.uy, radial, sum.m1);
    sum.m2 = fma4(pair.uz, radial, sum.m2);
    if (first) return;
    float4 turned = value(weights, coefficients(row + 64));
    if (!STUDENT) turned = mul(turned, load_sent(xj + 2 * FEATURES));
    sum.m0 = fma4(turned, load_sent(mj), sum.m0);
    sum.m1 = fma4(turned, load_sent(mj + FEATURES), sum.m1);
    sum.m2 = fma4(turned, load_sent(mj + 2 * FEATURES), sum.m2);
}

// Sums over pairs: gradients of x^q, x^R, x^μ and of the three components of μ.
struct Gathered {
    float4 sq, sr, sm, s0, s1, s2;
};

// Adds what the centre i of a pair (i <- j) gives back to its sender j, from g, (h0, h1, h2) = g_q,i, g_μ,i; returns the
// pair's dE/dd and dE/dû, four channels together. A row's entry points from j to i, û of the directed pair from i to j,
// hence its sign. In the first layer only the pair's gradients are asked for.
__device__ inline float4 add_adjoint(bool first, const Pair& pair, float per_angstrom, const float* row, const Sender& own,
                                     float4 g, float4 h0, float4 h1, float4 h2, Gathered& sum)
{
    Spline weights = spline(pair.fraction, per_angstrom);
    float4 ug = fma4(-pair.uz, h2, fma4(-pair.uy, h1, scale(-pair.ux, h0)));

    Coefficients c = coefficients(row);
    float4 along = mul(mul(slope(weights, c), own.xq), g);
    if (!first) sum.sq = fma4(value(weights, c), g, sum.sq);

    c = coefficients(row + 32);
    float4 wr = value(weights, c);
    along = fma4(mul(slope(weights, c), own.xr), ug, along);
    if (!first) sum.sr = fma4(wr, ug, sum.sr);
    float4 radial = mul(wr, own.xr);

    if (!first) {
        float4 mg = fma4(own.v2, h2, fma4(own.v1, h1, mul(own.v0, h0)));
        c = coefficients(row + 64);
        float4 wm = value(weights, c);
        along = fma4(mul(slope(weights, c), own.xm), mg, along);
        sum.sm = fma4(wm, mg, sum.sm);
        float4 turned = mul(wm, own.xm);
        sum.s0 = fma4(turned, h0, sum.s0);
        sum.s1 = fma4(turned, h1, sum.s1);
        sum.s2 = fma4(turned, h2, sum.s2);
    }
    return make_float4(sum4(along), sum4(mul(radial, h0)), sum4(mul(radial, h1)), sum4(mul(radial, h2)));
}
