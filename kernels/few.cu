// The network for few atoms, where nothing but latency counts: layers of a kernel that goes through all of them.
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

// Shapes of the layers.
#define MIX Shape{FEATURES, 2, FEATURES}
#define MIX_BACK Shape{2 * FEATURES, 1, FEATURES}
#define UPDATE_FIRST Shape{2 * FEATURES, 1, FEATURES}
#define UPDATE_FIRST_BACK Shape{FEATURES, 2, FEATURES}
#define ONE_TO_ONE Shape{FEATURES, 1, FEATURES}
#define ONE_TO_THREE Shape{FEATURES, 3, FEATURES}
#define THREE_TO_ONE Shape{3 * FEATURES, 1, FEATURES}
#define NO_LAYER Dense{nullptr, {0, 1, 0}}

// Back through a layer's update block: g_q and g_μ after it, in `gq` and `gm`, become those before it. In the last layer g_μ
// is zero. `panel` is the first of U2ᵀ.
__device__ inline void update_back(Team& t, const Layer& layer, Panel panel, const Channel& c, float& gq, float* gm,
                                   bool last)
{
    const Dense second = {layer.update_back[1], THREE_TO_ONE}, first = {layer.update_back[0], UPDATE_FIRST_BACK};
    const Dense mixed = {layer.mix_back, MIX_BACK};
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
    panel = multiply(t, panel, second, t.gradients, 3 * FEATURES, t.atoms, first);
    float gh = t.mine ? silu_slope(c.h) * total(t, second.s, 0) : 0.0f;
    give(t, t.hidden + t.local * FEATURES + t.channel, gh);
    finish(t.exchange, t.atoms * FEATURES);
    panel = multiply(t, panel, first, t.hidden, FEATURES, t.atoms, STUDENT ? NO_LAYER : mixed);
    float shared_part = gq * c.a3, gn = t.mine ? total(t, first.s, 1) : 0.0f;
    if (t.mine) gq += total(t, first.s, 0);
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
    multiply(t, panel, mixed, t.wide, 2 * FEATURES, 3 * t.atoms, NO_LAYER);
    for (int k = 0; k < 3 && t.mine; k++) gm[k] += total(t, mixed.s, 3 * t.atoms, 3 * t.local + k, 0, t.own);
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
        Dense then = {readout.back[d], {s.width, 1, s.inputs}};
        if (!deepest) then = {readout.weights[d + 1], {s.width, 1, readout.widths[d + 1]}};
        panel = multiply(t, panel, {readout.weights[d], s}, x, stride, t.atoms, then);
        // Every block has all hidden values h of all layers.
        float* h = t.wide + d * t.group * FEATURES;
        int own = s.width / CLUSTER;
        for (int warp = thread_here() / 32 * 32; warp < t.atoms * own; warp += FEW_THREADS) {
            int k = warp + warp_lane(), local = k / own, column = t.rank * own + k % own;
            bool on = k < t.atoms * own;
            float value = on ? readout.bias[d][column] + total(t, s, t.atoms, local, 0, k % own) : 0.0f;
            hand_out(t.exchange.now(), h + local * FEATURES + column, value, on);
        }
        finish(t.exchange, t.atoms * s.width);
        for (int k = threadIdx.x; k < t.atoms * s.width; k += FEW_THREADS) {
            int at = k / s.width * FEATURES + k % s.width;
            t.hidden[at] = deepest ? readout.last_weight[k % s.width] * silu_slope(h[at]) : silu(h[at]);
        }
        // Blocks take turns with the atoms.
        for (int local = t.rank + CLUSTER * (thread_here() / 32); local < t.atoms && deepest; local += CLUSTER * WARPS) {
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
        Dense then = {readout.back[d - 1], {s.width, 1, d > 1 ? readout.widths[d - 2] : FEATURES}};
        panel = multiply(t, panel, {readout.back[d], s}, x, stride, t.atoms, then);
        const float* h = t.wide + (d - 1) * t.group * FEATURES;
        float* to = x == t.hidden ? t.scalars : t.hidden;
        int own = s.width / CLUSTER;
        for (int warp = thread_here() / 32 * 32; warp < t.atoms * own; warp += FEW_THREADS) {
            int k = warp + warp_lane(), local = k / own, at = local * FEATURES + t.rank * own + k % own;
            bool on = k < t.atoms * own;
            float value = on ? silu_slope(h[at]) * total(t, s, t.atoms, local, 0, k % own) : 0.0f;
            hand_out(t.exchange.now(), to + at, value, on);
        }
        finish(t.exchange, t.atoms * s.width);
        x = to;
        s.inputs = s.width;
    }
    s.width = FEATURES;
    multiply(t, panel, {readout.back[0], s}, x, FEATURES, t.atoms, NO_LAYER);
    return t.mine ? total(t, s, 0) : 0.0f;
}

// What a thread keeps of its channel from layer to layer: the channel, and the energy's gradients of q and μ after the messages
// of a layer, those of the layer below on the way back.
struct Passing {
    Channel c;
    float gq, gm[3];
    int exchanges; // of the cluster, so far
};

// Layer l's messages and update; then what atoms send into the next layer, or, from the last layer, the readout.
__device__ inline void forward(const Parameters& p, const Network& network, int l, Passing& own)
{
    Team t = make_team(p, network, own.exchanges);
    bool first = l == 0, last = l + 1 == network.count;
    const Layer &layer = network.layers[l], &next = network.layers[last ? l : l + 1];
    const float* mu = first ? nullptr : network.layers[l - 1].mu;
    Channel& c = own.c;
    int vectors = t.atom * 3 * FEATURES + t.channel;
    // Looked up where they are needed: all of them at once would not fit into the registers.
    auto mix = [&] { return Dense{layer.mix, MIX}; };
    auto update = [&](int n) { return Dense{layer.update[n], n ? ONE_TO_THREE : UPDATE_FIRST}; };
    auto context = [&](int n) { return Dense{next.context[n], n ? ONE_TO_THREE : ONE_TO_ONE}; };
    auto readout = [&] { return Dense{network.readout.weights[0], {FEATURES, 1, network.readout.widths[0]}}; };
    float* kept = kept_of(t, l);
    int stride = kept_stride(t);
    if (first) {
        c = {};
        if (t.mine) c.q = (STUDENT ? layer.sent : network.embedding)[(long long)kind_of(p, t.atom) * FEATURES + t.channel];
    }
    gather_messages(p, t, layer.table, layer.sent, mu, first);
    Panel panel = fetch(t, STUDENT ? update(0) : mix());
    add_members(t, 4);
    float* own_scalars = t.scalars + t.local * 2 * FEATURES + t.channel;
    if (t.mine) {
        c.q += gathered(t, 4, 0);
        for (int k = 0; k < 3; k++) c.m[k] += gathered(t, 4, 1 + k);
    }
    give(t, own_scalars, c.q);
    for (int k = 0; k < 3 && !STUDENT; k++) give(t, t.wide + (3 * t.local + k) * FEATURES + t.channel, c.m[k]);
#if !STUDENT
    finish(t.exchange, 4 * t.atoms * FEATURES);
    panel = multiply(t, panel, mix(), t.wide, FEATURES, 3 * t.atoms, update(0));
#endif
    if (t.mine) {
        float square = 0.0f;
        for (int k = 0; k < 3; k++) {
#if STUDENT
            c.v[k] = c.m[k];
#else
            int row = 3 * t.local + k;
            c.v[k] = total(t, mix().s, 3 * t.atoms, row, 0, t.own);
            c.y[k] = total(t, mix().s, 3 * t.atoms, row, 1, t.own);
            kept[(6 + k) * stride] = c.y[k];
#endif
            kept[(3 + k) * stride] = c.v[k];
            square += c.v[k] * c.v[k];
        }
        c.n = sqrtf(square + layer.epsilon);
    }
    give(t, own_scalars + FEATURES, c.n);
    finish(t.exchange, (STUDENT ? 2 : 1) * t.atoms * FEATURES);
    panel = multiply(t, panel, update(0), t.scalars, 2 * FEATURES, t.atoms, update(1));
    if (t.mine) kept[0] = c.h = layer.update_bias[0][t.channel] + total(t, update(0).s, 0);
    give(t, t.hidden + t.local * FEATURES + t.channel, silu(c.h));
    finish(t.exchange, t.atoms * FEATURES);
    panel = multiply(t, panel, update(1), t.hidden, FEATURES, t.atoms, last ? readout() : STUDENT ? NO_LAYER : context(0));
    if (t.mine) {
        const float* bias = layer.update_bias[1] + t.channel;
        float a1 = bias[0] + total(t, update(1).s, 0);
        c.a2 = bias[FEATURES] + total(t, update(1).s, 1);
        c.a3 = bias[2 * FEATURES] + total(t, update(1).s, 2);
        float s = 0.0f;
        for (int k = 0; k < 3; k++) {
            s += c.v[k] * c.y[k];
            c.m[k] = STUDENT ? c.v[k] * c.a2 + turned(layer.mixing, c.v, k) * c.a3 : c.m[k] + c.a2 * c.y[k];
            if (!last) layer.mu[vectors + k * FEATURES] = c.m[k];
        }
        c.q += STUDENT ? a1 : a1 + c.a3 * s;
        kept[stride] = c.a2;
        kept[2 * stride] = c.a3;
        if (STUDENT && !last) next.sent[t.atom * FEATURES + t.channel] = c.q;
    }
    if (!STUDENT || last) give(t, own_scalars, c.q);
    if (last) {
        finish(t.exchange, t.atoms * FEATURES);
        own.gq = read_out(p, t, network.readout, panel);
        for (int k = 0; k < 3; k++) own.gm[k] = 0.0f;
        own.exchanges = t.exchange.count;
        return;
    }
#if !STUDENT
    // x = W2 σ(W1 q + b1) + b2 of the next layer.
    finish(t.exchange, t.atoms * FEATURES);
    panel = multiply(t, panel, context(0), t.scalars, 2 * FEATURES, t.atoms, context(1));
    float h = 0.0f;
    if (t.mine) kept[9 * stride] = h = next.context_bias[0][t.channel] + total(t, context(0).s, 0);
    give(t, t.hidden + t.local * FEATURES + t.channel, silu(h));
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, context(1), t.hidden, FEATURES, t.atoms, NO_LAYER);
    for (int k = 0; k < 3 && t.mine; k++)
        next.sent[vectors + k * FEATURES] = next.context_bias[1][k * FEATURES + t.channel] + total(t, context(1).s, k);
#endif
    own.exchanges = t.exchange.count;
}

// The adjoint of layer l's update: leaves the gradients of q and μ after its messages where all atoms find them.
__device__ inline void backward_update(const Parameters& p, const Network& network, int l, Passing& own)
{
    Team t = make_team(p, network, own.exchanges);
    const Layer& layer = network.layers[l];
    Panel panel = fetch(t, {layer.update_back[1], THREE_TO_ONE});
    Channel c = {};
    if (t.mine) {
        const float* kept = kept_of(t, l);
        int stride = kept_stride(t);
        c.h = kept[0];
        c.a2 = kept[stride];
        c.a3 = kept[2 * stride];
        float square = 0.0f;
        for (int k = 0; k < 3; k++) {
            c.v[k] = kept[(3 + k) * stride];
            if (!STUDENT) c.y[k] = kept[(6 + k) * stride];
            square += c.v[k] * c.v[k];
        }
        c.n = sqrtf(square + layer.epsilon);
    }
    update_back(t, layer, panel, c, own.gq, own.gm, l + 1 == network.count);
    if (t.mine) {
        float* const* to = network.gradients[l & 1];
        to[0][t.atom * FEATURES + t.channel] = own.gq;
        for (int k = 0; k < 3; k++) to[1][(t.atom * 3 + k) * FEATURES + t.channel] = own.gm[k];
    }
    own.exchanges = t.exchange.count;
}

// The adjoint of layer l's messages and of its context; in the first layer only the gradients of pairs.
__device__ inline void backward_messages(const Parameters& p, const Network& network, int l, Passing& own)
{
    Team t = make_team(p, network, own.exchanges);
    bool first = l == 0, more = l + 1 < network.count;
    const Layer& layer = network.layers[l];
    const float *gq = network.gradients[l & 1][0], *gmu = network.gradients[l & 1][1];
    gather_gradients(p, t, layer.table, layer.sent, network.layers[first ? 0 : l - 1].mu, gq, gmu, first, more);
    if (first) return;
    const Dense context[2] = {{layer.context_back[0], ONE_TO_ONE}, {layer.context_back[1], THREE_TO_ONE}};
    Panel panel = fetch(t, STUDENT ? NO_LAYER : context[1]);
    add_members(t, 6);
    for (int k = 0; k < 3 && t.mine; k++) own.gm[k] += gathered(t, 6, 3 + k);
#if STUDENT
    if (t.mine) own.gq += gathered(t, 6, 0);
#else
    float context_hidden = t.mine ? kept_of(t, l - 1)[9 * kept_stride(t)] : 0.0f;
    for (int k = 0; k < 3; k++) {
        float gx = t.mine ? gathered(t, 6, k) : 0.0f;
        give(t, t.gradients + (3 * t.local + k) * FEATURES + t.channel, gx);
    }
    finish(t.exchange, 3 * t.atoms * FEATURES);
    panel = multiply(t, panel, context[1], t.gradients, 3 * FEATURES, t.atoms, context[0]);
    float gh = t.mine ? silu_slope(context_hidden) * total(t, context[1].s, 0) : 0.0f;
    give(t, t.hidden + t.local * FEATURES + t.channel, gh);
    finish(t.exchange, t.atoms * FEATURES);
    multiply(t, panel, context[0], t.hidden, FEATURES, t.atoms, NO_LAYER);
    if (t.mine) own.gq += total(t, context[0].s, 0);
#endif
    own.exchanges = t.exchange.count;
}
