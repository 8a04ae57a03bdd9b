// What messages and their adjoints read, four channels at a time. Both architectures share the code, a student merely sends
// (q, 1, 1).
#pragma once
#include "common.cuh"

#define SENDER_WIDTH (STUDENT ? FEATURES : 3 * FEATURES)

// What gradients are multiplied by where they have 16 bits: below 1e-6 eV they lose digits, at 1000 eV they are too large.
#define GRADIENT_SCALE 64.0f

// A layer's filter: its table, or what radial.cuh makes it of, weights divided by `unit`.
struct Filter {
    const float* table;
    const uint4* weights;
    const float2* functions;
    float unit;
};

static_assert(sizeof(Filter) == FILTER_BYTES, "host and device disagree on what they share");

__device__ inline void load_pair(const Parameters& p, unsigned at, Pair& pair)
{
    ((int4*)&pair)[0] = __ldg((const int4*)(p.pairs + at));
    ((float4*)&pair)[1] = __ldg((const float4*)(p.pairs + at) + 1);
}

// The row of what an atom sends, from its own row: in the first layer that of its element.
__device__ inline int sender_row(const Parameters& p, bool first, int row) { return first ? kind_of(p, row) : row; }

// What the sender of the adjoint brings along: x_j and μ_j.
struct Sender {
    float4 xq, xr, xm, v0, v1, v2;
};

// `xj`, `mj`: where they are; in the first layer x^μ and μ are zero.
__device__ inline Sender sender(bool first, const float* xj, const float* mj)
{
    float4 ones = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    Sender own = {load_sent(xj), STUDENT ? ones : load_sent(xj + FEATURES), zero4(), zero4(), zero4(), zero4()};
    if (first) return own;
    own.xm = STUDENT ? ones : load_sent(xj + 2 * FEATURES);
    own.v0 = load_sent(mj);
    own.v1 = load_sent(mj + FEATURES);
    own.v2 = load_sent(mj + 2 * FEATURES);
    return own;
}
