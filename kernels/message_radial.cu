// The message block and its adjoint, for many atoms, with filters from tensor cores: see radial.cuh.
//
// One warp an atom, 32 channels and 16 pairs at a time. Blocks walk over all rows once for each slice of 32 channels, whose filter
// weights are then in their shared memory. Their warps stand side by side, and the blocks too, so that what they gather is near.
// The same warp comes to an atom in every slice: so a pair's gradient is added up slice by slice by one lane. With SLICED
// a block has one slice, and pairs have a gradient of each. While a warp works on 16 pairs, the next ones come to shared memory, zeros where a row has no more. Sums: lane g, of eight, adds the pairs 16 n + g
// and 16 n + 8 + g of the row in order, then the lanes are added; so the grid changes no bit.
#include "radial.cuh"

static_assert(!STUDENT, "a student's filters are no linear map of the radial functions");

// As many as the registers allow; the host has the same numbers.
#define MESSAGE_THREADS 384
#define ADJOINT_FIRST_THREADS 384
#define ADJOINT_THREADS 256
#define RADIAL_MEMORY (FILTER_TILES * 48 + FUNCTIONS / 2)

// What a warp does: from which slice on and before which one; its first row, and how far it is to the next one. A block has so many warps
// or, with one slice, fewer: no more than rows are there for.
struct Part {
    int begin, end, first, stride;
};

__device__ inline Part own_part(int warps)
{
    int slice = 0, end = SLICES, block = blockIdx.x, blocks = gridDim.x;
    if (SLICED) {
        slice = block % SLICES;
        end = slice + 1;
        block /= SLICES;
        blocks /= SLICES;
        warps = blockDim.x / 32;
    }
    return {slice, end, block * warps + (int)threadIdx.x / 32, blocks * warps};
}

// The formulas are those of message.cu.
template <bool FIRST>
__device__ inline void messages(const Parameters& p, const Filter& filters, const float* x, const float* mu, const float* q,
                                float* q_out, float* mu_out)
{
    const int WARPS = MESSAGE_THREADS / 32;
    __shared__ float4 memory[RADIAL_MEMORY];
    __shared__ Pair room[WARPS][2][16];
    if (p.control->status != 0) return;
    const Part part = own_part(WARPS);
    int lane = warp_lane(), g = lane / 4, first = part.first, stride = part.stride;
    Pair(*tiles)[16] = room[threadIdx.x / 32];
    // Lanes of odd pairs begin with the other 16 channels: eight lanes then read from all banks of the cache.
    bool odd = g & 1;
    int near = odd ? 16 : 0, far = 16 - near;
#pragma unroll 1
    for (int slice = part.begin; slice < part.end; slice++) {
        // Zeros that the slice before asked for behind its last row.
        all_arrived();
        __syncthreads();
        Radial radial = stage(filters, slice, memory);
        __syncthreads();
        int channel = slice * 32 + lane % 4 * 4, turn = 0;
        Row row = row_at(p, FIRST, first);
        ask_pairs(p, tiles[0], row.begin, row.end);
        asked();
#pragma unroll 1
        for (int own = first; own < p.atoms; own += stride) {
            Row next = row_at(p, FIRST, own + stride);
            float4 sum[8];
#pragma unroll
            for (int k = 0; k < 8; k++) sum[k] = zero4();
            unsigned at = row.begin;
#pragma unroll 1
            do {
                bool more = at + 16 < row.end;
                ask_pairs(p, tiles[turn ^ 1], more ? at + 16 : next.begin, more ? row.end : next.end);
                asked();
                arrived();
                __syncwarp();
                const Pair *low = tiles[turn] + g, *high = low + 8;
                Factor value_low, value_high, none;
                functions_of<false>(radial, *low, value_low, none);
                functions_of<false>(radial, *high, value_high, none);
                const float* xl = x + (unsigned)(sender_row(p, FIRST, low->neighbor) * SENDER_WIDTH + channel);
                const float* xh = x + (unsigned)(sender_row(p, FIRST, high->neighbor) * SENDER_WIDTH + channel);
                Turned w = turned_filter(radial, value_low, value_high, 0, odd);
                sum[0] = fma4(w.high[0], load4(xh + near), fma4(w.low[0], load4(xl + near), sum[0]));
                sum[4] = fma4(w.high[1], load4(xh + far), fma4(w.low[1], load4(xl + far), sum[4]));
                // Else registers fill up with what comes later.
                __syncwarp();
                w = turned_filter(radial, value_low, value_high, 1, odd);
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    float4* s = sum + 4 * n;
                    int from = n == 0 ? near : far;
                    w.low[n] = mul(w.low[n], load4(xl + FEATURES + from));
                    w.high[n] = mul(w.high[n], load4(xh + FEATURES + from));
                    s[1] = fma4(high->ux, w.high[n], fma4(low->ux, w.low[n], s[1]));
                    s[2] = fma4(high->uy, w.high[n], fma4(low->uy, w.low[n], s[2]));
                    s[3] = fma4(high->uz, w.high[n], fma4(low->uz, w.low[n], s[3]));
                }
                if (!FIRST) {
                    w = turned_filter(radial, value_low, value_high, 2, odd);
                    const float* ml = mu + (unsigned)(low->neighbor * 3 * FEATURES + channel);
                    const float* mh = mu + (unsigned)(high->neighbor * 3 * FEATURES + channel);
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        int from = n == 0 ? near : far;
                        w.low[n] = mul(w.low[n], load4(xl + 2 * FEATURES + from));
                        w.high[n] = mul(w.high[n], load4(xh + 2 * FEATURES + from));
#pragma unroll
                        for (int k = 0; k < 3; k++) {
                            const float *vl = ml + k * FEATURES + from, *vh = mh + k * FEATURES + from;
                            float4& s = sum[4 * n + 1 + k];
                            s = fma4(w.high[n], load4(vh), fma4(w.low[n], load4(vl), s));
                        }
                    }
                }
                __syncwarp();
                turn ^= 1;
                at += 16;
            } while (at < row.end);
#pragma unroll
            for (int k = 0; k < 4; k++) exchange_if(odd, sum[k], sum[k + 4]);
            // Each lane keeps one of the eight sums: of T by its fifth bit, of (s, m0, m1, m2) by the next two.
#pragma unroll
            for (int k = 0; k < 4; k++) sum[k] = keep_half(sum[k], sum[k + 4], 16);
            sum[0] = keep_half(sum[0], sum[2], 8);
            sum[1] = keep_half(sum[1], sum[3], 8);
            float4 result = scale(filters.unit, keep_half(sum[0], sum[1], 4));
            int which = lane_here() / 4 % 4, from = channel + (lane_here() & 16);
            unsigned scalars = own * FEATURES + from, vectors = (own * 3 + which - 1) * FEATURES + from;
            // q and q_out may be one array.
            const float* scalar = q + (unsigned)((FIRST ? row.sender : own) * FEATURES + from);
            float4 before = which == 0 ? *(const float4*)scalar : FIRST ? zero4() : load4(mu + vectors);
            store4(which == 0 ? q_out + scalars : mu_out + vectors, add(before, result));
            row = next;
        }
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

__device__ inline float& part(float4& v, int k) { return k == 0 ? v.x : k == 1 ? v.y : k == 2 ? v.z : v.w; }
__device__ inline float part(const float4& v, int k) { return k == 0 ? v.x : k == 1 ? v.y : k == 2 ? v.z : v.w; }

// What an atom of the adjoint brings along, 32 channels in each row: what it sends, x^q, x^R and x^μ, then μ, and its own g_μ. The
// first layer needs the first two rows.
enum { SENT_Q, SENT_R, SENT_MU, MU, OWN_GMU = MU + 3, OWN_ROWS = OWN_GMU + 3 };

// Those rows on their way to shared memory, four at a time.
template <bool FIRST>
__device__ inline void ask_own(float4 (*to)[8], int own, int sender, bool on, int slice, const float* x, const float* mu, const float* gmu)
{
    const int rows = FIRST ? SENT_MU : OWN_ROWS;
    unsigned lane = lane_here(), column = lane % 8, at = slice * 32 + column * 4;
#pragma unroll
    for (int n = 0; n < rows; n += 4) {
        unsigned k = n + lane / 8;
        const float* from = k < MU      ? x + (sender * SENDER_WIDTH + k * FEATURES + at)
                          : k < OWN_GMU ? mu + ((own * 3 + k - MU) * FEATURES + at)
                                        : gmu + ((own * 3 + k - OWN_GMU) * FEATURES + at);
        if (k < rows) ask(&to[k][column], from, on);
    }
}

// The lane's two factors of a pair of pairs: for W and for W'.
struct Factors {
    Factor low[2], high[2];
};

// Adds what the lane's channels 16 T + 4 c and on give to the sums of the sender and to the gradients dE/dd and dE/dû of two pairs.
template <bool FIRST>
__device__ inline void add_channels(const Radial& radial, const Factors& factors, const Pair* const* pairs, const Centre* centres,
                                    const float4 (*along)[8], int T, float4* sum, float4* pull)
{
    const int place = 4 * T + warp_lane() % 4;
#pragma unroll
    for (int third = 0; third < (FIRST ? 2 : 3); third++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            Right right = right_factor(radial, third, 2 * T + n);
            float4 w = product(factors.low[0], factors.high[0], right), slope = product(factors.low[1], factors.high[1], right);
            float2 sent = {0.0f, 0.0f}, v[3];
            if (third < 2) sent = ((const float2*)&along[third][place])[n];
            else for (int k = 0; k < 3; k++) v[k] = ((const float2*)&along[2 + k][place])[n];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int k = 2 * n + e;
                float own = e == 0 ? sent.x : sent.y;
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    const Centre& i = centres[b];
                    float h0 = part(i.h0, k), h1 = part(i.h1, k), h2 = part(i.h2, k), W = part(w, 2 * b + e), dW = part(slope, 2 * b + e);
                    if (third == 0) {
                        float g = part(i.g, k);
                        pull[b].x = fmaf(dW, own * g, pull[b].x);
                        if (!FIRST) part(sum[0], k) = fmaf(W, g, part(sum[0], k));
                    } else if (third == 1) {
                        // The directed pair's û points the other way, hence the sign.
                        float u = fmaf(-pairs[b]->uz, h2, fmaf(-pairs[b]->uy, h1, -pairs[b]->ux * h0));
                        if (!FIRST) part(sum[1], k) = fmaf(W, u, part(sum[1], k));
                        pull[b].x = fmaf(dW, own * u, pull[b].x);
                        W *= own;
                        pull[b].y = fmaf(W, h0, pull[b].y);
                        pull[b].z = fmaf(W, h1, pull[b].z);
                        pull[b].w = fmaf(W, h2, pull[b].w);
                    } else {
                        float a = e == 0 ? v[0].x : v[0].y, c = e == 0 ? v[1].x : v[1].y, d = e == 0 ? v[2].x : v[2].y;
                        pull[b].x = fmaf(dW, fmaf(d, h2, fmaf(c, h1, a * h0)), pull[b].x);
                        part(sum[2], k) = fmaf(W, h0, part(sum[2], k));
                        part(sum[3], k) = fmaf(W, h1, part(sum[3], k));
                        part(sum[4], k) = fmaf(W, h2, part(sum[4], k));
                    }
                }
            }
        }
    }
}

// From a sender's sums over its pairs, Σ W^q g_q, Σ W^R (û·g_μ) and the three of Σ W^μ g_μ, for both T, to the gradients of what it
// sent, whose x^μ and μ do not depend on the pair.
__device__ inline void give_back(const float4* sum, const float4 (*kept)[8], float unit, int row, int slice, float* gx, float* gmu_out)
{
    // One channel a lane: its fifth bit chooses T, the two below one of four neighbours.
    int lane = lane_here(), channel = (lane & 16) + lane % 4 * 4 + (lane & 8 ? 2 : 0) + (lane & 4 ? 1 : 0);
    float s[5];
#pragma unroll
    for (int n = 0; n < 5; n++) {
        float4 four = keep_half(sum[n], sum[n + 5], 16);
        s[n] = unit * keep_half(keep_half(four.x, four.z, 8), keep_half(four.y, four.w, 8), 4);
    }
    const float(*own)[32] = (const float(*)[32])kept;
    unsigned at = row * 3 * FEATURES + slice * 32 + channel;
    gx[at] = s[0];
    gx[at + FEATURES] = s[1];
    gx[at + 2 * FEATURES] = fmaf(own[MU + 2][channel], s[4], fmaf(own[MU + 1][channel], s[3], own[MU][channel] * s[2]));
#pragma unroll
    for (int k = 0; k < 3; k++) gmu_out[at + k * FEATURES] = own[OWN_GMU + k][channel] + own[SENT_MU][channel] * s[2 + k];
}

// Shared memory of a warp, 128 bits each: two times 16 pairs, two atoms' own rows, x^q, x^R and x^μ μ of one.
#define ADJOINT_ROOM(first) (64 + ((first) ? 3 * SENT_MU * 8 : (2 * OWN_ROWS + 5) * 8))

template <bool FIRST>
__device__ inline void messages_adjoint(const Parameters& p, const Filter& filters, const float* x, const float* mu,
                                        const float* gq, const float* gmu, float* gx, float* gmu_out, int more)
{
    const int WARPS = (FIRST ? ADJOINT_FIRST_THREADS : ADJOINT_THREADS) / 32, ROWS = FIRST ? SENT_MU : OWN_ROWS;
    DYNAMIC_SHARED(float4, block_room);
    if (p.control->status != 0) return;
    float4* room = block_room + RADIAL_MEMORY + threadIdx.x / 32 * ADJOINT_ROOM(FIRST);
    Pair(*tiles)[16] = (Pair(*)[16])room;
    float4(*owns)[ROWS][8] = (float4(*)[ROWS][8])(room + 64), (*along)[8] = owns[2];
    const Part part = own_part(WARPS);
    int lane = warp_lane(), g = lane / 4, first = part.first, stride = part.stride;
#pragma unroll 1
    for (int slice = part.begin; slice < part.end; slice++) {
        // Zeros that the slice before asked for behind its last row.
        all_arrived();
        __syncthreads();
        Radial radial = stage(filters, slice, block_room);
        __syncthreads();
        bool adds = more || (!SLICED && slice > 0);
        float4* gradients = p.gradients + (SLICED ? slice * p.capacity : 0);
        int channel = slice * 32 + lane % 4 * 4, turn = 0, flip = 0;
        Row row = row_at(p, FIRST, first);
        ask_pairs(p, tiles[0], row.begin, row.end);
        ask_own<FIRST>(owns[0], first, row.sender, first < p.atoms, slice, x, mu, gmu);
        asked();
        int sender = first + stride < p.atoms ? sender_row(p, FIRST, first + stride) : 0;
#pragma unroll 1
        for (int own = first; own < p.atoms; own += stride) {
            Row next = row_at(p, FIRST, own + stride);
            float4(*kept)[8] = owns[flip];
            ask_own<FIRST>(owns[flip ^ 1], own + stride, sender, own + stride < p.atoms, slice, x, mu, gmu);
            sender = own + 2 * stride < p.atoms ? sender_row(p, FIRST, own + 2 * stride) : 0;
            float4 sum[10];
#pragma unroll
            for (int k = 0; k < 10; k++) sum[k] = zero4();
            unsigned at = row.begin;
#pragma unroll 1
            do {
                bool ahead = at + 16 < row.end;
                ask_pairs(p, tiles[turn ^ 1], ahead ? at + 16 : next.begin, ahead ? row.end : next.end);
                asked();
                arrived();
                __syncwarp();
                if (at == row.begin) {
                    int k = lane_here() / 8, column = lane_here() % 8;
                    if (k < 2) along[k][column] = kept[k][column];
                    if (!FIRST && k < 3) along[2 + k][column] = mul(kept[SENT_MU][column], kept[MU + k][column]);
                    __syncwarp();
                }
                const Pair* pairs[2] = {tiles[turn] + g, tiles[turn] + g + 8};
                // Of a pair's gradient this lane leaves two numbers.
                const Pair* mine = tiles[turn] + g + (lane & 2 ? 8 : 0);
                bool leaves = at + (mine - tiles[turn]) < row.end;
                float2 before = {0.0f, 0.0f};
                if (adds && leaves) before = ((float2*)(gradients + mine->entry))[lane & 1];
                Factors factors;
                functions_of<true>(radial, *pairs[0], factors.low[0], factors.low[1]);
                functions_of<true>(radial, *pairs[1], factors.high[0], factors.high[1]);
                // dE/dd and dE/dû of both pairs.
                float4 pull[2] = {zero4(), zero4()};
#pragma unroll
                for (int T = 0; T < 2; T++) {
                    Centre centres[2];
#pragma unroll
                    for (int b = 0; b < 2; b++) centres[b] = centre(gq, gmu, pairs[b]->neighbor, channel + 16 * T);
                    add_channels<FIRST>(radial, factors, pairs, centres, along, T, sum + 5 * T, pull);
                }
                // Sums over the four lanes of a pair: the upper two keep those of the second pair, the odd ones the last two numbers.
                float4 one = keep_half(pull[0], pull[1], 2);
                float2 two = {keep_half(one.x, one.z, 1), keep_half(one.y, one.w, 1)};
                if (leaves) {
                    float2 after = {before.x + two.x * filters.unit, before.y + two.y * filters.unit};
                    ((float2*)(gradients + mine->entry))[lane & 1] = after;
                }
                __syncwarp();
                turn ^= 1;
                at += 16;
            } while (at < row.end);
            if (!FIRST) give_back(sum, kept, filters.unit, own, slice, gx, gmu_out);
            __syncwarp();
            flip ^= 1;
            row = next;
        }
    }
}

// The last but one of the arguments is a student's.
extern "C" __global__ void __launch_bounds__(ADJOINT_FIRST_THREADS, 1)
adjoint_first(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
              const float* gmu, float* gx, float*, float* gmu_out, int more)
{
    messages_adjoint<true>(p, filter, x, mu, gq, gmu, gx, gmu_out, more);
}

extern "C" __global__ void __launch_bounds__(ADJOINT_THREADS, 1)
adjoint_next(Parameters p, const __grid_constant__ Filter filter, const float* x, const float* mu, const float* gq,
             const float* gmu, float* gx, float*, float* gmu_out, int more)
{
    messages_adjoint<false>(p, filter, x, mu, gq, gmu, gx, gmu_out, more);
}
