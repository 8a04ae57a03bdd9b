// What is left of the update blocks once their dense layers are done. One thread an atom and channel.
#include "update.cuh"

// painn    q += a1 + a3 Σ_c V_c Y_c,  μ_c += a2 Y_c
// student  q += a1,                   μ_c = (μ_c before) a2 + (T μ)_c a3
// coefficients: [N][3F]. In the last layer μ is left alone: it cannot reach the energy.
extern "C" __global__ void update(Parameters p, Mixing mixing, const float* coefficients, const float* vectors, float* q,
                                  float* mu, int last)
{
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (p.control->status != 0 || index >= (long long)p.atoms * FEATURES) return;
    int atom = (int)(index / FEATURES), channel = (int)(index % FEATURES);
    const float* a = coefficients + (long long)atom * 3 * FEATURES + channel;
    float* own = mu + (long long)atom * 3 * FEATURES + channel;
    float v[3];
    for (int c = 0; c < 3; c++) v[c] = vectors[vector_at(atom, c, channel)];
#if STUDENT
    q[index] += a[0];
    for (int c = 0; c < 3 && !last; c++) own[c * FEATURES] = v[c] * a[FEATURES] + turned(mixing, v, c) * a[2 * FEATURES];
#else
    float s = 0.0f;
    for (int c = 0; c < 3; c++) {
        float y = vectors[vector_at(atom, c, FEATURES + channel)];
        s += v[c] * y;
        if (!last) own[c * FEATURES] += a[FEATURES] * y;
    }
    q[index] += a[0] + a[2 * FEATURES] * s;
#endif
}

// The adjoint after the dense layers': gin [N][2F] is the gradient of [q, n].
//   painn    g_VY = (g_q a3 Y_c + g_n V_c / n,  g_q a3 V_c + g_μ,c a2)  [N][3][2F]
//   student  g_μ,c = g_μ,c a2 + (Tᵀ g_μ)_c a3 + g_n μ_c / n, the last term 0 where μ = 0
//   both     g_q += gin_q
// In the last layer g_μ is zero before, and not read; a student's may be written where the coefficients are. g_VY takes
// the place of (V, Y). Each thread reads before it writes.
extern "C" __global__ void update_adjoint(Parameters p, Mixing mixing, const float* coefficients, float* vectors,
                                          const float* gin, float epsilon, float* gq, float* gmu, int last)
{
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (p.control->status != 0 || index >= (long long)p.atoms * FEATURES) return;
    int atom = (int)(index / FEATURES), channel = (int)(index % FEATURES);
    const float* a = coefficients + (long long)atom * 3 * FEATURES + channel;
    float a2 = a[FEATURES], a3 = a[2 * FEATURES];
    float* own = gmu + (long long)atom * 3 * FEATURES + channel;
    float n = norm(vectors, atom, channel, epsilon), gn = gin[(long long)atom * 2 * FEATURES + FEATURES + channel];
    float v[3], g[3];
    for (int c = 0; c < 3; c++) {
        v[c] = vectors[vector_at(atom, c, channel)];
        g[c] = last ? 0.0f : own[c * FEATURES];
    }
#if STUDENT
    float slope = n > 0.0f ? gn / n : 0.0f;
    for (int c = 0; c < 3; c++)
        own[c * FEATURES] = g[c] * a2 + turned_back(mixing, g, c) * a3 + slope * v[c];
#else
    float shared_part = gq[index] * a3;
    for (int c = 0; c < 3; c++) {
        float y = vectors[vector_at(atom, c, FEATURES + channel)];
        vectors[vector_at(atom, c, channel)] = shared_part * y + gn * v[c] / n;
        vectors[vector_at(atom, c, FEATURES + channel)] = shared_part * v[c] + g[c] * a2;
    }
#endif
    gq[index] += gin[(long long)atom * 2 * FEATURES + channel];
}
