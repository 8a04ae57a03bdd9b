// The network for few atoms, where nothing but latency counts: everything between two exchanges of messages is one kernel.
//
// A cluster of blocks takes up to `group` atoms. Each block owns OWN channels of every feature: it gathers their
// messages, and computes those outputs of dense layers. Thread (atom, channel) keeps in registers what belongs to that
// channel, and hands out what the next dense layer takes in to all blocks. Every sum has an order of its own, which
// neither the number of clusters nor their place changes; the number of atoms decides `group`.
#include "few_messages.cuh"

// One channel of an atom on its way through an update block. Names as in ARCHITECTURE.md; a student has its μ before the
// update for v, and no y.
struct Channel {
    float q, m[3];
    float v[3], y[3], n, h;
    float a2, a3;
};

// Back through a layer's update block: g_q and g_μ after it, in `gq` and `gm`, become those before it. In the last layer g_μ
// is zero. `panel` is the first of U2ᵀ.
__device__ inline void update_back(Team& t, const Layer& layer, Panel panel, const Channel& c, float& gq, float* gm,
                                   bool last)
{
    const Shape second = {3 * FEATURES, 1, FEATURES}, first = {FEATURES, 2, FEATURES}, mixed = {2 * FEATURES, 1, FEATURES};
    float* g = t.gradients + t.local * 3 * FEATURES + t.channel;
    float s = 0.0f, along = 0.0f;
    for (int k = 0; k < 3; k++) {
        s += STUDENT ? gm[k] * turned(layer.mixing, c.v, k) : c.v[k] * c.y[k];
        along += gm[k] * (STUDENT ? c.v[k] : c.y[k]);
    }
    give(t, g, gq);
    give(t, g + FEATURES, last ? 0.0f : along);
    give(t, g + 2 * FEATURES, STUDENT ? (last ? 0.0f : s) : gq * s);
    finish(t.exchange, 3 * t.atoms * FEATURES);
    multiply(t, panel, layer.update_back[1], second, t.gradients, 3 * FEATURES, t.atoms);
    panel = fetch(t, layer.update_back[0], first);
    __syncthreads();
    float gh = t.mine ? silu_slope(c.h) * total(t, second, 0) : 0.0f;
    give(t, t.hidden + t.local * FEATURES + t.channel, gh);
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, layer.update_back[0], first, t.hidden, FEATURES, t.atoms);
    if (!STUDENT) panel = fetch(t, layer.mix_back, mixed);
    __syncthreads();
    float shared_part = gq * c.a3, gn = t.mine ? total(t, first, 1) : 0.0f;
    if (t.mine) gq += total(t, first, 0);
#if STUDENT
    float slope = c.n > 0.0f ? gn / c.n : 0.0f;
    float before[3] = {gm[0], gm[1], gm[2]};
    for (int k = 0; k < 3; k++) gm[k] = before[k] * c.a2 + turned_back(layer.mixing, before, k) * c.a3 + slope * c.v[k];
#else
    for (int k = 0; k < 3; k++) {
        float* to = t.wide + (3 * t.local + k) * 2 * FEATURES + t.channel;
        give(t, to, t.mine ? shared_part * c.y[k] + gn * c.v[k] / c.n : 0.0f);
        give(t, to + FEATURES, shared_part * c.v[k] + gm[k] * c.a2);
    }
    finish(t.exchange, 6 * t.atoms * FEATURES);
    multiply(t, panel, layer.mix_back, mixed, t.wide, 2 * FEATURES, 3 * t.atoms);
    __syncthreads();
    for (int k = 0; k < 3 && t.mine; k++) gm[k] += total(t, mixed, 3 * t.atoms, 3 * t.local + k, 0, t.own);
#endif
}

// The readout, from all q in `scalars`: energies of atoms; returns ∂E/∂q of this thread's channel. `panel` is the first of the
// first hidden layer.
__device__ inline float read_out(const Parameters& p, Team& t, const Readout& readout, Panel panel)
{
    const float* x = t.scalars;
    int stride = 2 * FEATURES;
    Shape s = {FEATURES, 1, 0};
    for (int d = 0; d < readout.layers; d++) {
        s.width = readout.widths[d];
        bool deepest = d + 1 == readout.layers;
        multiply(t, panel, readout.weights[d], s, x, stride, t.atoms);
        panel = deepest ? fetch(t, readout.back[d], {s.width, 1, s.inputs})
                       : fetch(t, readout.weights[d + 1], {s.width, 1, readout.widths[d + 1]});
        __syncthreads();
        // Every block has all hidden values h of all layers.
        float* h = t.wide + d * t.group * FEATURES;
        int own = s.width / CLUSTER;
        for (int warp = threadIdx.x / 32 * 32; warp < t.atoms * own; warp += FEW_THREADS) {
            int k = warp + warp_lane(), local = k / own, column = t.rank * own + k % own;
            bool on = k < t.atoms * own;
            float value = on ? readout.bias[d][column] + total(t, s, t.atoms, local, 0, k % own) : 0.0f;
            hand_out(t.exchange, h + local * FEATURES + column, value, on);
        }
        finish(t.exchange, t.atoms * s.width);
        for (int k = threadIdx.x; k < t.atoms * s.width; k += FEW_THREADS) {
            int at = k / s.width * FEATURES + k % s.width;
            t.hidden[at] = deepest ? readout.last_weight[k % s.width] * silu_slope(h[at]) : silu(h[at]);
        }
        // Blocks take turns with the atoms.
        for (int local = t.rank + CLUSTER * (threadIdx.x / 32); local < t.atoms && deepest; local += CLUSTER * WARPS) {
            float sum = 0.0f;
            for (int k = warp_lane(); k < s.width; k += 32) sum = fmaf(readout.last_weight[k], silu(h[local * FEATURES + k]), sum);
            for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(FULL, sum, offset);
            if (warp_lane() == 0) p.energies[t.first + local] = sum + readout.last_bias;
        }
        __syncthreads();
        x = t.hidden;
        stride = FEATURES;
        s.inputs = s.width;
    }
    for (int d = readout.layers - 1; d > 0; d--) {
        s.width = readout.widths[d - 1];
        multiply(t, panel, readout.back[d], s, x, stride, t.atoms);
        panel = fetch(t, readout.back[d - 1], {s.width, 1, d > 1 ? readout.widths[d - 2] : FEATURES});
        __syncthreads();
        const float* h = t.wide + (d - 1) * t.group * FEATURES;
        float* to = x == t.hidden ? t.scalars : t.hidden;
        int own = s.width / CLUSTER;
        for (int warp = threadIdx.x / 32 * 32; warp < t.atoms * own; warp += FEW_THREADS) {
            int k = warp + warp_lane(), local = k / own, at = local * FEATURES + t.rank * own + k % own;
            bool on = k < t.atoms * own;
            float value = on ? silu_slope(h[at]) * total(t, s, t.atoms, local, 0, k % own) : 0.0f;
            hand_out(t.exchange, to + at, value, on);
        }
        finish(t.exchange, t.atoms * s.width);
        x = to;
        s.inputs = s.width;
    }
    s.width = FEATURES;
    multiply(t, panel, readout.back[0], s, x, FEATURES, t.atoms);
    __syncthreads();
    return t.mine ? total(t, s, 0) : 0.0f;
}

// A layer's messages and update; then what atoms send into the next layer, or, from the last layer, the readout and back
// through the update. A cluster for every `group` atoms.
// q: before, [N][F], for each element in the first layer; mu: before, [N][3][F]. The last layer leaves no q and no μ but
// their gradients, gq [N][F] and gmu [N][3][F].
extern "C" __global__ void CLUSTERED __launch_bounds__(FEW_THREADS, 1)
few_forward(const __grid_constant__ Parameters p, int group, const __grid_constant__ Layer layer,
            const __grid_constant__ Layer next, const __grid_constant__ Readout readout, const float* q, const float* mu,
            float* q_out, float* gq, float* gmu, int first, int last)
{
    const Shape mixing = {FEATURES, 2, FEATURES}, update_first = {2 * FEATURES, 1, FEATURES};
    const Shape single = {FEATURES, 1, FEATURES}, triple = {FEATURES, 3, FEATURES};
    Team t = make_team(p, group);
    open_exchange(t.exchange.barriers);
    Crew crew = make_crew(p, t);
    if (p.control->status != 0) {
        cluster_wait();
        return;
    }
    Channel c = {};
    int scalars = t.atom * FEATURES + t.channel, vectors = t.atom * 3 * FEATURES + t.channel;
    if (t.mine) {
        c.q = q[(long long)sender_row(p, first, t.atom) * FEATURES + t.channel];
        for (int k = 0; k < 3 && !first; k++) c.m[k] = mu[vectors + k * FEATURES];
    }
    gather_messages(p, t, crew, layer.table, layer.sent, mu, first);
    Panel panel = STUDENT ? fetch(t, layer.update[0], update_first) : fetch(t, layer.mix, mixing);
    __syncthreads();
    // All blocks have their barriers before anybody writes to them.
    cluster_wait();
    float* own_scalars = t.scalars + t.local * 2 * FEATURES + t.channel;
    if (t.mine) {
        c.q += gathered(t, 4, 0);
        for (int k = 0; k < 3; k++) c.m[k] += gathered(t, 4, 1 + k);
    }
    give(t, own_scalars, c.q);
    for (int k = 0; k < 3 && !STUDENT; k++) give(t, t.wide + (3 * t.local + k) * FEATURES + t.channel, c.m[k]);
#if !STUDENT
    finish(t.exchange, 4 * t.atoms * FEATURES);
    multiply(t, panel, layer.mix, mixing, t.wide, FEATURES, 3 * t.atoms);
    panel = fetch(t, layer.update[0], update_first);
    __syncthreads();
#endif
    if (t.mine) {
        float square = 0.0f;
        for (int k = 0; k < 3; k++) {
#if STUDENT
            c.v[k] = c.m[k];
#else
            int row = 3 * t.local + k;
            c.v[k] = total(t, mixing, 3 * t.atoms, row, 0, t.own);
            c.y[k] = total(t, mixing, 3 * t.atoms, row, 1, t.own);
            if (!last) layer.vectors[vector_at(t.atom, k, FEATURES + t.channel)] = c.y[k];
#endif
            if (!last) layer.vectors[vector_at(t.atom, k, t.channel)] = c.v[k];
            square += c.v[k] * c.v[k];
        }
        c.n = sqrtf(square + layer.epsilon);
    }
    give(t, own_scalars + FEATURES, c.n);
    finish(t.exchange, (STUDENT ? 2 : 1) * t.atoms * FEATURES);
    multiply(t, panel, layer.update[0], update_first, t.scalars, 2 * FEATURES, t.atoms);
    panel = fetch(t, layer.update[1], triple);
    __syncthreads();
    if (t.mine) {
        c.h = layer.update_bias[0][t.channel] + total(t, update_first, 0);
        if (!last) layer.hidden[scalars] = c.h;
    }
    give(t, t.hidden + t.local * FEATURES + t.channel, silu(c.h));
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, layer.update[1], triple, t.hidden, FEATURES, t.atoms);
    if (last) panel = fetch(t, readout.weights[0], {FEATURES, 1, readout.widths[0]});
    else if (!STUDENT) panel = fetch(t, next.context[0], single);
    __syncthreads();
    if (t.mine) {
        const float* bias = layer.update_bias[1] + t.channel;
        float a1 = bias[0] + total(t, triple, 0);
        c.a2 = bias[FEATURES] + total(t, triple, 1);
        c.a3 = bias[2 * FEATURES] + total(t, triple, 2);
        float s = 0.0f;
        for (int k = 0; k < 3; k++) {
            s += c.v[k] * c.y[k];
            c.m[k] = STUDENT ? c.v[k] * c.a2 + turned(layer.mixing, c.v, k) * c.a3 : c.m[k] + c.a2 * c.y[k];
            if (!last) layer.mu[vectors + k * FEATURES] = c.m[k];
        }
        c.q += STUDENT ? a1 : a1 + c.a3 * s;
        if (!last) {
            layer.coefficients[vectors + FEATURES] = c.a2;
            layer.coefficients[vectors + 2 * FEATURES] = c.a3;
            q_out[scalars] = c.q;
        }
    }
    if (!STUDENT || last) give(t, own_scalars, c.q);
    if (last) {
        finish(t.exchange, t.atoms * FEATURES);
        float gradient = read_out(p, t, readout, panel), gm[3] = {0.0f, 0.0f, 0.0f};
        panel = fetch(t, layer.update_back[1], {3 * FEATURES, 1, FEATURES});
        update_back(t, layer, panel, c, gradient, gm, true);
        if (t.mine) {
            gq[scalars] = gradient;
            for (int k = 0; k < 3; k++) gmu[vectors + k * FEATURES] = gm[k];
        }
        return;
    }
#if !STUDENT
    // x = W2 σ(W1 q + b1) + b2 of the next layer.
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, next.context[0], single, t.scalars, 2 * FEATURES, t.atoms);
    panel = fetch(t, next.context[1], triple);
    __syncthreads();
    float h = 0.0f;
    if (t.mine) {
        h = next.context_bias[0][t.channel] + total(t, single, 0);
        next.context_hidden[scalars] = h;
    }
    give(t, t.hidden + t.local * FEATURES + t.channel, silu(h));
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, next.context[1], triple, t.hidden, FEATURES, t.atoms);
    __syncthreads();
    for (int k = 0; k < 3 && t.mine; k++)
        next.sent[vectors + k * FEATURES] = next.context_bias[1][k * FEATURES + t.channel] + total(t, triple, k);
#endif
}

// The adjoint of a layer's messages, its context, and of the update of the layer before it; in the first layer only the
// gradients of pairs. gq, gmu: gradients of q and μ after the messages; gq_out, gmu_out: those after the messages of the
// layer before. `more`: the gradients of pairs have been begun.
extern "C" __global__ void CLUSTERED __launch_bounds__(FEW_THREADS, 1)
few_backward(const __grid_constant__ Parameters p, int group, const __grid_constant__ Layer layer,
             const __grid_constant__ Layer before, const float* gq, const float* gmu, float* gq_out, float* gmu_out, int first,
             int more)
{
    const Shape single = {FEATURES, 1, FEATURES}, triple = {3 * FEATURES, 1, FEATURES};
    Team t = make_team(p, group);
    open_exchange(t.exchange.barriers);
    Crew crew = make_crew(p, t);
    if (p.control->status != 0) {
        cluster_wait();
        return;
    }
    gather_gradients(p, t, crew, layer.table, layer.sent, before.mu, gq, gmu, first, more);
    if (first) {
        cluster_wait();
        return;
    }
    Panel panel = fetch(t, STUDENT ? before.update_back[1] : layer.context_back[1], triple);
    Channel c = {};
    float g = 0.0f, gm[3] = {0.0f, 0.0f, 0.0f}, context_hidden = 0.0f;
    int scalars = t.atom * FEATURES + t.channel, vectors = t.atom * 3 * FEATURES + t.channel;
    if (t.mine) {
        g = gq[scalars];
        c.h = before.hidden[scalars];
        c.a2 = before.coefficients[vectors + FEATURES];
        c.a3 = before.coefficients[vectors + 2 * FEATURES];
        float square = 0.0f;
        for (int k = 0; k < 3; k++) {
            gm[k] = gmu[vectors + k * FEATURES];
            c.v[k] = before.vectors[vector_at(t.atom, k, t.channel)];
            if (!STUDENT) c.y[k] = before.vectors[vector_at(t.atom, k, FEATURES + t.channel)];
            square += c.v[k] * c.v[k];
        }
        c.n = sqrtf(square + before.epsilon);
        if (!STUDENT) context_hidden = layer.context_hidden[scalars];
    }
    __syncthreads();
    // All blocks have their barriers before anybody writes to them.
    cluster_wait();
    for (int k = 0; k < 3 && t.mine; k++) gm[k] += gathered(t, 6, 3 + k);
#if STUDENT
    if (t.mine) g += gathered(t, 6, 0);
#else
    for (int k = 0; k < 3; k++) {
        float gx = t.mine ? gathered(t, 6, k) : 0.0f;
        give(t, t.gradients + (3 * t.local + k) * FEATURES + t.channel, gx);
    }
    finish(t.exchange, 3 * t.atoms * FEATURES);
    multiply(t, panel, layer.context_back[1], triple, t.gradients, 3 * FEATURES, t.atoms);
    panel = fetch(t, layer.context_back[0], single);
    __syncthreads();
    float gh = t.mine ? silu_slope(context_hidden) * total(t, triple, 0) : 0.0f;
    give(t, t.hidden + t.local * FEATURES + t.channel, gh);
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, layer.context_back[0], single, t.hidden, FEATURES, t.atoms);
    panel = fetch(t, before.update_back[1], triple);
    __syncthreads();
    if (t.mine) g += total(t, single, 0);
#endif
    update_back(t, before, panel, c, g, gm, false);
    if (t.mine) {
        gq_out[scalars] = g;
        for (int k = 0; k < 3; k++) gmu_out[vectors + k * FEATURES] = gm[k];
    }
}
