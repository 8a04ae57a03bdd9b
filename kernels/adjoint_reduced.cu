// The adjoint of the message block in reduced precision: see reduced.cuh.
//
// W and W' are products with pairs as rows and channels as columns, of functions and weights of 16 bits. With g = lane / 4 and
// c = lane % 4 a lane has the pairs g and g + 8 and the channels 8 c and on of 32. src/backend/cuda/radial.rs packs the weights to match.
#include "reduced.cuh"

// The right factor of 8 columns.
struct Right {
    unsigned part[3];
};

__device__ inline Right right_factor(const unsigned* weights, int third, int t)
{
    const unsigned* at = weights + (third * 4 + t) * 96;
    uint2 two = ((const uint2*)at)[warp_lane()];
    return {two.x, two.y, at[64 + warp_lane()]};
}

// The left factor of a pair: the lane's functions c, c + 4, …, and what goes with the bias.
struct Factor {
    unsigned part[3];
};

__device__ inline Factor factor(const float* v, float cutoff)
{
    int c = warp_lane() % 4;
    float high = lower_half(pack_halves(cutoff, 0.0f));
    return {pack_halves(v[0], v[1]), pack_halves(v[2], v[3]), pack_halves(v[4], c == 2 ? cutoff - high : high)};
}

// For W and, where it is asked for, for W'. All zero for zeros in place of a pair.
template <bool SLOPE> __device__ inline void functions_of(const float2* functions, const Pair& pair, Factor& value, Factor& slope)
{
    const float minus_two_ln2 = -1.38629436f;
    float fc = pair.inside, dfc = pair.slope;
    float v[5], s[5];
#pragma unroll
    for (int k = 0; k < 5; k++) {
        float2 f = functions[warp_lane() % 4 + 4 * k];
        float t = pair.distance - f.x, scaled = t * f.y, e = two_to(-(t * scaled));
        v[k] = e * fc;
        s[k] = e * fmaf(minus_two_ln2 * scaled, fc, dfc);
    }
    value = factor(v, fc);
    if (SLOPE) slope = factor(s, dfc);
}

// Two channels of the pair g, then of the pair g + 8.
__device__ inline float4 product(const Factor& low, const Factor& high, const Right& right)
{
    float4 sum = half_product(low.part[0], high.part[0], low.part[1], high.part[1], right.part[0], right.part[1]);
    add_small_half_product(sum, low.part[2], high.part[2], right.part[2]);
    return sum;
}

// Two rows of eight channels, gathered: lanes of odd pairs begin with the second row, so that eight lanes read from all banks of the
// cache.
struct Gathered {
    unsigned of[2][4];
};

__device__ inline Gathered gather(const uint4* rows, bool odd)
{
    uint4 a = __ldg(rows + (odd ? 4 : 0)), b = __ldg(rows + (odd ? 0 : 4));
    return {{{odd ? b.x : a.x, odd ? b.y : a.y, odd ? b.z : a.z, odd ? b.w : a.w},
             {odd ? a.x : b.x, odd ? a.y : b.y, odd ? a.z : b.z, odd ? a.w : b.w}}};
}

// Sums of eight channels over the pairs of eight lanes: the fifth bit of a lane chooses four of them, which it keeps of ROWS rows.
template <int ROWS> __device__ inline void keep_four(const float (*sum)[8], float (*four)[4])
{
#pragma unroll
    for (int k = 0; k < ROWS; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) four[k][n] = keep_half(sum[k][n], sum[k][n + 4], 16);
}

// What an atom of the adjoint brings along in a slice: the rows that it sends, 16 bits wide, and its own g_μ.
template <bool FIRST> struct Own {
    uint4 sent[SENT_ROWS(FIRST)][4];
    float4 gmu[FIRST ? 1 : 3][8];
};

// On their way to shared memory.
template <bool FIRST>
__device__ inline void ask_own(Own<FIRST>& to, int own, int sender, bool on, int slice, const uint4* sent, const float* gmu)
{
    const unsigned pieces = SENT_ROWS(FIRST) * 4;
    unsigned lane = lane_here();
    if (lane < pieces) {
        ask(&to.sent[0][0] + lane, sent + sent_place(FIRST, sender, slice / 2, lane / 4, slice % 2 * 4 + lane % 4), on);
    }
    if (!FIRST && lane < 24) ask(&to.gmu[0][0] + lane, gmu + (unsigned)((own * 3 + lane / 8) * FEATURES + slice * 32 + lane % 8 * 4), on);
}

__device__ inline float half_of(const uint4* row, int channel)
{
    unsigned both = ((const unsigned*)row)[channel / 2];
    return channel % 2 ? upper_half(both) : lower_half(both);
}

// From a sender's sums over its pairs, Σ W^q g_q, Σ W^R (û·g_μ) and the three of Σ W^μ g_μ, to the gradients of what it sent, whose x^μ
// and μ do not depend on the pair. Those of x lie where x was, slice by slice, as float32.
__device__ inline void give_back(const float (*sum)[8], const Own<false>& kept, float unit, int row, int slice, float* gx, float* gmu_out)
{
    // One channel a lane.
    int lane = lane_here(), channel = lane % 4 * 8 + (lane & 16 ? 4 : 0) + (lane & 8 ? 2 : 0) + (lane & 4 ? 1 : 0);
    float four[5][4], s[5];
    keep_four<5>(sum, four);
#pragma unroll
    for (int n = 0; n < 5; n++) s[n] = unit * keep_half(keep_half(four[n][0], four[n][2], 8), keep_half(four[n][1], four[n][3], 8), 4);
    float* to = gx + sent_place(false, row, slice / 2, channel / 16, slice % 2 * 4 + channel % 16 / 4) * 4 + channel % 4;
    float x = half_of(kept.sent[2], channel), m0 = half_of(kept.sent[3], channel), m1 = half_of(kept.sent[4], channel),
          m2 = half_of(kept.sent[5], channel);
    to[0] = s[0];
    to[64] = s[1];
    to[128] = fmaf(m2, s[4], fmaf(m1, s[3], m0 * s[2]));
    unsigned at = row * 3 * FEATURES + slice * 32 + channel;
#pragma unroll
    for (int k = 0; k < 3; k++) gmu_out[at + k * FEATURES] = ((const float*)kept.gmu[k])[channel] + x * s[2 + k];
}

// Shared memory of a warp.
template <bool FIRST> struct Room {
    Pair tiles[2][16];
    Own<FIRST> owns[2];
    float along[FIRST ? 2 : 5][32]; // x^q, x^R, and x^μ μ
};

template <bool FIRST>
__device__ inline void messages_adjoint(const Parameters& p, const Filter& filters, const uint4* sent, const uint4* gradients,
                                        const float* gmu, float* gx, float* gmu_out, int more)
{
    const int WARPS = (FIRST ? ADJOINT_FIRST_THREADS : ADJOINT_THREADS) / 32, THIRDS = FIRST ? 2 : 3;
    DYNAMIC_SHARED(float4, block_room);
    if (p.control->status != 0) return;
    float2* functions = (float2*)block_room;
    unsigned* weights = (unsigned*)(block_room + FUNCTIONS / 2);
    Room<FIRST>& room = ((Room<FIRST>*)(block_room + FUNCTIONS / 2 + 12 * 24))[threadIdx.x / 32];
    int lane = warp_lane(), g = lane / 4, first = blockIdx.x * WARPS + threadIdx.x / 32, stride = gridDim.x * WARPS;
    bool odd = g & 1;
    float unit = filters.unit / GRADIENT_SCALE;
    stage((uint4*)functions, (const uint4*)filters.functions, FUNCTIONS / 2);
#pragma unroll 1
    for (int slice = 0; slice < SLICES; slice++) {
        // Zeros that the slice before asked for behind its last row.
        all_arrived();
        __syncthreads();
        // Behind those of the messages.
        stage((uint4*)weights, filters.weights + (FEATURES + slice * 32) * 9, THIRDS * 4 * 24);
        __syncthreads();
        unsigned place = slice * GRADIENT_ROWS * 4 + lane % 4;
        bool adds = more || slice > 0;
        int turn = 0, flip = 0;
        Row row = row_at(p, FIRST, first);
        ask_pairs(p, room.tiles[0], row.begin, row.end);
        ask_own<FIRST>(room.owns[0], first, row.sender, first < p.atoms, slice, sent, gmu);
        asked();
        int sender = first + stride < p.atoms ? sender_row(p, FIRST, first + stride) : 0;
#pragma unroll 1
        for (int own = first; own < p.atoms; own += stride) {
            Row next = row_at(p, FIRST, own + stride);
            const Own<FIRST>& kept = room.owns[flip];
            ask_own<FIRST>(room.owns[flip ^ 1], own + stride, sender, own + stride < p.atoms, slice, sent, gmu);
            sender = own + 2 * stride < p.atoms ? sender_row(p, FIRST, own + 2 * stride) : 0;
            float sum[5][8];
#pragma unroll
            for (int k = 0; k < 40; k++) sum[k / 8][k % 8] = 0.0f;
            unsigned at = row.begin;
#pragma unroll 1
            do {
                bool ahead = at + 16 < row.end;
                ask_pairs(p, room.tiles[turn ^ 1], ahead ? at + 16 : next.begin, ahead ? row.end : next.end);
                asked();
                arrived();
                __syncwarp();
                if (at == row.begin) {
                    int channel = lane_here();
                    room.along[0][channel] = half_of(kept.sent[0], channel);
                    room.along[1][channel] = half_of(kept.sent[1], channel);
                    if (!FIRST)
                        for (int k = 0; k < 3; k++)
                            room.along[2 + k][channel] = half_of(kept.sent[2], channel) * half_of(kept.sent[3 + k], channel);
                    __syncwarp();
                }
                const Pair* pairs[2] = {room.tiles[turn] + g, room.tiles[turn] + g + 8};
                // Of a pair's gradient this lane leaves two numbers.
                const Pair* mine = room.tiles[turn] + g + (lane & 2 ? 8 : 0);
                bool leaves = at + (mine - room.tiles[turn]) < row.end;
                float2 before = {0.0f, 0.0f};
                if (adds && leaves) before = ((float2*)(p.gradients + mine->entry))[lane & 1];
                Gathered near[2], far[2];
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    const uint4* from = gradients + (unsigned)(pairs[b]->neighbor * (SLICES * GRADIENT_ROWS * 4) + place);
                    near[b] = gather(from, odd);
                    far[b] = gather(from + 8, odd);
                }
                // Of W, then of W'.
                Factor low[2], high[2];
                functions_of<true>(functions, *pairs[0], low[0], low[1]);
                functions_of<true>(functions, *pairs[1], high[0], high[1]);
                // dE/dd and dE/dû of both pairs.
                float pull[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
                const float* along = &room.along[0][0] + lane % 4 * 8;
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    float h[2][3][2], G[2][2];
#pragma unroll
                    for (int b = 0; b < 2; b++) {
                        unsigned rows[4] = {near[b].of[0][t], near[b].of[1][t], far[b].of[0][t], far[b].of[1][t]};
                        G[b][0] = lower_half(rows[0]), G[b][1] = upper_half(rows[0]);
#pragma unroll
                        for (int k = 0; k < 3; k++) h[b][k][0] = lower_half(rows[1 + k]), h[b][k][1] = upper_half(rows[1 + k]);
                    }
#pragma unroll
                    for (int third = 0; third < THIRDS; third++) {
                        float4 w = product(low[0], high[0], right_factor(weights, third, t)), slope = product(low[1], high[1], right_factor(weights, third, t));
                        float W[2][2] = {{w.x, w.y}, {w.z, w.w}}, dW[2][2] = {{slope.x, slope.y}, {slope.z, slope.w}};
                        float2 brought[3];
                        if (third < 2) brought[0] = *(const float2*)(along + third * 32 + 2 * t);
                        else for (int k = 0; k < 3; k++) brought[k] = *(const float2*)(along + (2 + k) * 32 + 2 * t);
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int k = 2 * t + e;
                            float x = e == 0 ? brought[0].x : brought[0].y;
#pragma unroll
                            for (int b = 0; b < 2; b++) {
                                float h0 = h[b][0][e], h1 = h[b][1][e], h2 = h[b][2][e];
                                if (third == 0) {
                                    pull[b][0] = fmaf(dW[b][e], x * G[b][e], pull[b][0]);
                                    if (!FIRST) sum[0][k] = fmaf(W[b][e], G[b][e], sum[0][k]);
                                } else if (third == 1) {
                                    // The directed pair's û points the other way, hence the sign.
                                    float u = fmaf(-pairs[b]->uz, h2, fmaf(-pairs[b]->uy, h1, -pairs[b]->ux * h0));
                                    if (!FIRST) sum[1][k] = fmaf(W[b][e], u, sum[1][k]);
                                    pull[b][0] = fmaf(dW[b][e], x * u, pull[b][0]);
                                    float weighted = W[b][e] * x;
                                    pull[b][1] = fmaf(weighted, h0, pull[b][1]);
                                    pull[b][2] = fmaf(weighted, h1, pull[b][2]);
                                    pull[b][3] = fmaf(weighted, h2, pull[b][3]);
                                } else {
                                    float y = e == 0 ? brought[1].x : brought[1].y, z = e == 0 ? brought[2].x : brought[2].y;
                                    pull[b][0] = fmaf(dW[b][e], fmaf(z, h2, fmaf(y, h1, x * h0)), pull[b][0]);
                                    sum[2][k] = fmaf(W[b][e], h0, sum[2][k]);
                                    sum[3][k] = fmaf(W[b][e], h1, sum[3][k]);
                                    sum[4][k] = fmaf(W[b][e], h2, sum[4][k]);
                                }
                            }
                        }
                    }
                }
                // Sums over the four lanes of a pair: the upper two keep those of the second pair, the odd ones the last two numbers.
                float one[4];
#pragma unroll
                for (int k = 0; k < 4; k++) one[k] = keep_half(pull[0][k], pull[1][k], 2);
                float2 two = {keep_half(one[0], one[2], 1), keep_half(one[1], one[3], 1)};
                if (leaves) {
                    float2 after = {before.x + two.x * unit, before.y + two.y * unit};
                    ((float2*)(p.gradients + mine->entry))[lane & 1] = after;
                }
                __syncwarp();
                turn ^= 1;
                at += 16;
            } while (at < row.end);
            if constexpr (!FIRST) give_back(sum, kept, unit, own, slice, gx, gmu_out);
            __syncwarp();
            flip ^= 1;
            row = next;
        }
    }
}

extern "C" __global__ void __launch_bounds__(ADJOINT_FIRST_THREADS, 1)
adjoint_first(Parameters p, const __grid_constant__ Filter filter, const uint4* sent, const uint4* gradients, const float* gmu, float* gx,
              float* gmu_out, int more)
{
    messages_adjoint<true>(p, filter, sent, gradients, gmu, gx, gmu_out, more);
}

extern "C" __global__ void __launch_bounds__(ADJOINT_THREADS, 1)
adjoint_next(Parameters p, const __grid_constant__ Filter filter, const uint4* sent, const uint4* gradients, const float* gmu, float* gx,
             float* gmu_out, int more)
{
    messages_adjoint<false>(p, filter, sent, gradients, gmu, gx, gmu_out, more);
}
