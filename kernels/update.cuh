// The update blocks, channel by channel. Vectors kept for the adjoint: painn's (V, Y) [N][3][2F], a student's μ before the
// update [N][3][F].
#pragma once
#include "common.cuh"

// The student's 3x3 mixing matrix T, row-major; zeros elsewhere.
struct Mixing {
    float t[9];
};

#define VECTOR_WIDTH (STUDENT ? FEATURES : 2 * FEATURES)

__device__ inline long long vector_at(int atom, int c, int channel)
{
    return ((long long)atom * 3 + c) * VECTOR_WIDTH + channel;
}

// n = sqrt(Σ_c V_c² + ε); a student's |μ|, with ε = 0.
__device__ inline float norm(const float* vectors, int atom, int channel, float epsilon)
{
    float square = 0.0f;
    for (int c = 0; c < 3; c++) {
        float v = vectors[vector_at(atom, c, channel)];
        square += v * v;
    }
    return sqrtf(square + epsilon);
}

// Component c of T v, and of Tᵀ v.
__device__ inline float turned(const Mixing& m, const float* v, int c)
{
    return m.t[3 * c] * v[0] + m.t[3 * c + 1] * v[1] + m.t[3 * c + 2] * v[2];
}
__device__ inline float turned_back(const Mixing& m, const float* v, int c)
{
    return m.t[c] * v[0] + m.t[3 + c] * v[1] + m.t[6 + c] * v[2];
}

// The same for four channels at once.
__device__ inline float4 norm4(const float* vectors, int atom, int channel, float epsilon)
{
    float4 s = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int c = 0; c < 3; c++) {
        float4 v = *(const float4*)(vectors + vector_at(atom, c, channel));
        s = make_float4(s.x + v.x * v.x, s.y + v.y * v.y, s.z + v.z * v.z, s.w + v.w * v.w);
    }
    return make_float4(sqrtf(s.x + epsilon), sqrtf(s.y + epsilon), sqrtf(s.z + epsilon), sqrtf(s.w + epsilon));
}

// Elements k … k+3 (k from 0 to 3F, a multiple of 4) of an atom's gradient of (a1, a2, a3):
//   painn (g_q, Σ_c g_μ,c Y_c, g_q Σ_c V_c Y_c), student (g_q, Σ_c g_μ,c μ_c, Σ_c g_μ,c (T μ)_c).
// In the last layer g_μ is zero and not looked at.
__device__ inline float4 coefficient_gradient4(const Mixing& mixing, const float* gq, const float* gmu,
                                               const float* vectors, int atom, int k, int last)
{
    int part = k / FEATURES, channel = k - part * FEATURES;
    float4 g_scalar = *(const float4*)(gq + (long long)atom * FEATURES + channel);
    if (part == 0) return g_scalar;
    if (last && (part == 1 || STUDENT)) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    union Four {
        float4 all;
        float each[4];
    } g[3], v[3], scalar, result;
    scalar.all = g_scalar;
    // g_μ with μ or Y, or V with Y.
    bool from_vectors = !STUDENT && part == 2;
    for (int c = 0; c < 3; c++) {
        g[c].all = from_vectors ? *(const float4*)(vectors + vector_at(atom, c, channel))
                                : *(const float4*)(gmu + ((long long)atom * 3 + c) * FEATURES + channel);
        v[c].all = *(const float4*)(vectors + vector_at(atom, c, STUDENT ? channel : FEATURES + channel));
    }
    for (int n = 0; n < 4; n++) {
        float own[3] = {v[0].each[n], v[1].each[n], v[2].each[n]}, sum = 0.0f;
        for (int c = 0; c < 3; c++) sum += g[c].each[n] * (STUDENT && part == 2 ? turned(mixing, own, c) : own[c]);
        result.each[n] = from_vectors ? scalar.each[n] * sum : sum;
    }
    return result.all;
}
