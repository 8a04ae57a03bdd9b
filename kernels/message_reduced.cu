// The message block in reduced precision: see reduced.cuh.
//
// W = Σ_k A_k φ_k f_c + b f_c is a product with channels as rows and pairs as columns, of weights of 16 bits with functions of 32, split into
// hi + lo but for the last four, which are small. With g = lane / 4 and c = lane % 4 a lane then has the channels 8 g and on of 64, and the
// pairs c, c + 4, c + 8 and c + 12. W times what was gathered is, in 16 bits, the left factor of a second product that sums over the
// pairs in float32: its columns say which sum a pair goes to. src/backend/cuda/radial.rs packs the weights to match.
#include "reduced.cuh"

// The left factor of 16 channels: its functions c, c + 4, c + 8, c + 12 for two channels in turns, then c + 16 and what is the bias's.
struct Left {
    unsigned most[4], last[2];
};

__device__ inline Left left_factor(const unsigned* weights, int third, int m)
{
    const unsigned* at = weights + (third * 4 + m) * 192;
    uint4 most = ((const uint4*)at)[warp_lane()];
    uint2 last = ((const uint2*)(at + 128))[warp_lane()];
    return {{most.x, most.y, most.z, most.w}, {last.x, last.y}};
}

// The right factor of eight pairs: hi of the lane's functions, what that leaves of the first four, and the last with the bias's.
struct Functions {
    unsigned high[2], low[2], last;
};

__device__ inline Functions functions_of(const float2* mine, const Pair& pair)
{
    float v[5];
#pragma unroll
    for (int k = 0; k < 5; k++) {
        float t = pair.distance - mine[k].x;
        v[k] = two_to(-(t * (t * mine[k].y))) * pair.inside;
    }
    float whole = lower_half(pack_halves(pair.inside, 0.0f));
    Functions all;
    all.high[0] = pack_halves(v[0], v[1]);
    all.high[1] = pack_halves(v[2], v[3]);
    all.low[0] = pack_halves(v[0] - lower_half(all.high[0]), v[1] - upper_half(all.high[0]));
    all.low[1] = pack_halves(v[2] - lower_half(all.high[1]), v[3] - upper_half(all.high[1]));
    all.last = pack_halves(v[4], warp_lane() % 4 == 2 ? pair.inside - whole : whole);
    return all;
}

// W of 16 channels and 16 pairs in 16 bits, as a left factor.
struct Filters {
    unsigned of[4];
};

__device__ inline Filters filters_of(const Left& left, const Functions* pairs)
{
    Filters w;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const unsigned* a = left.most;
        float4 sum = half_product(a[0], a[1], a[2], a[3], pairs[n].low[0], pairs[n].low[1]);
        add_small_half_product(sum, left.last[0], left.last[1], pairs[n].last);
        add_half_product(sum, a[0], a[1], a[2], a[3], pairs[n].high[0], pairs[n].high[1]);
        w.of[2 * n] = pack_halves(sum.x, sum.y);
        w.of[2 * n + 1] = pack_halves(sum.z, sum.w);
    }
    return w;
}

// Eight channels of four pairs.
struct Sent {
    unsigned of[4][4];
};

__device__ inline Sent gather(const uint4* sent, const unsigned* places, int row)
{
    Sent x;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        uint4 v = __ldg(sent + (places[n] + row * 8));
        x.of[n][0] = v.x, x.of[n][1] = v.y, x.of[n][2] = v.z, x.of[n][3] = v.w;
    }
    return x;
}

// Times the 2 m-th and the next one of the channels.
__device__ inline Filters times(const Filters& w, const Sent& x, int m)
{
    Filters y;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        y.of[2 * n] = multiply_halves(w.of[2 * n], lower_halves(x.of[2 * n][m], x.of[2 * n + 1][m]));
        y.of[2 * n + 1] = multiply_halves(w.of[2 * n + 1], upper_halves(x.of[2 * n][m], x.of[2 * n + 1][m]));
    }
    return y;
}

__device__ inline void add_pairs(float4& sum, const Filters& y, unsigned first, unsigned second)
{
    add_half_product(sum, y.of[0], y.of[1], y.of[2], y.of[3], first, second);
}

// The formulas are those of message.cu.
template <bool FIRST>
__device__ inline void messages(const Parameters& p, const Filter& filters, const uint4* sent, const float* mu, const float* q,
                                float* q_out, float* mu_out)
{
    const int WARPS = (FIRST ? MESSAGE_FIRST_THREADS : MESSAGE_THREADS) / 32, THIRDS = FIRST ? 2 : 3;
    __shared__ Pair room[WARPS][2][16];
    __shared__ uint4 weights[THIRDS * 4 * 48];
    if (p.control->status != 0) return;
    int lane = warp_lane(), g = lane / 4, c = lane % 4, first = blockIdx.x * WARPS + threadIdx.x / 32, stride = gridDim.x * WARPS;
    Pair(*tiles)[16] = room[threadIdx.x / 32];
    // The lane's functions.
    float2 functions[5];
#pragma unroll
    for (int k = 0; k < 5; k++) functions[k] = __ldg(filters.functions + c + 4 * k);
#pragma unroll 1
    for (int slice = 0; slice < WIDE_SLICES; slice++) {
        // Zeros that the slice before asked for behind its last row.
        all_arrived();
        __syncthreads();
        stage(weights, filters.weights + slice * 12 * 48, THIRDS * 4 * 48);
        __syncthreads();
        int turn = 0;
        Row row = row_at(p, FIRST, first);
        ask_pairs(p, tiles[0], row.begin, row.end);
        asked();
#pragma unroll 1
        for (int own = first; own < p.atoms; own += stride) {
            Row next = row_at(p, FIRST, own + stride);
            // Of 16 channels by columns: the scalars' message, the vectors', zero, and what 16 bits leave of the vectors'.
            float4 sum[4] = {zero4(), zero4(), zero4(), zero4()};
            unsigned at = row.begin;
#pragma unroll 1
            do {
                bool more = at + 16 < row.end;
                ask_pairs(p, tiles[turn ^ 1], more ? at + 16 : next.begin, more ? row.end : next.end);
                asked();
                arrived();
                __syncwarp();
                const Pair* tile = tiles[turn];
                unsigned places[4];
                float u[4];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const Pair& pair = tile[c + 4 * n];
                    unsigned sender = sender_row(p, FIRST, pair.neighbor);
                    places[n] = sent_place(FIRST, sender, slice, 0, g);
                    u[n] = g % 4 == 0 ? 0.0f : (&pair.ux)[g % 4 - 1];
                    if (g >= 4) u[n] -= lower_half(pack_halves(u[n], 0.0f));
                }
                // The columns 2 c and 2 c + 1 of both products are a lane's, so pairs stand in this order in them.
                const Pair* pair = tile + g % 2 * 4 + g / 2;
                Functions pairs[2] = {functions_of(functions, pair[0]), functions_of(functions, pair[8])};
                // Right factors: which column.
                unsigned direction[2] = {pack_halves(u[0], u[1]), pack_halves(u[2], u[3])};
                unsigned ones = 0x3c003c00u;
                Sent x = gather(sent, places, 0);
#pragma unroll
                for (int m = 0; m < 4; m++) {
                    unsigned column = g == 0 ? ones : 0;
                    add_pairs(sum[m], times(filters_of(left_factor((const unsigned*)weights, 0, m), pairs), x, m), column, column);
                }
                x = gather(sent, places, 1);
#pragma unroll
                for (int m = 0; m < 4; m++) add_pairs(sum[m], times(filters_of(left_factor((const unsigned*)weights, 1, m), pairs), x, m), direction[0], direction[1]);
                if (!FIRST) {
                    x = gather(sent, places, 2);
                    Filters w[4];
#pragma unroll
                    for (int m = 0; m < 4; m++) w[m] = times(filters_of(left_factor((const unsigned*)weights, THIRDS - 1, m), pairs), x, m);
#pragma unroll
                    for (int k = 0; k < 3; k++) {
                        x = gather(sent, places, 3 + k);
                        unsigned column = g == 1 + k ? ones : 0;
#pragma unroll
                        for (int m = 0; m < 4; m++) add_pairs(sum[m], times(w[m], x, m), column, column);
                    }
                }
                __syncwarp();
                turn ^= 1;
                at += 16;
            } while (at < row.end);
            // A lane keeps one of the four sums of its channels.
            float result[8];
#pragma unroll
            for (int m = 0; m < 4; m++) {
                result[2 * m] = filters.unit * keep_half(sum[m].x, sum[m].y, 2);
                result[2 * m + 1] = filters.unit * keep_half(sum[m].z, sum[m].w, 2);
            }
            int column = lane_here() % 4, which = column == 0 ? 0 : column == 1 ? 2 : column == 2 ? 1 : 3;
#pragma unroll
            for (int n = 0; n < 2; n++) {
                int channel = slice * 64 + lane_here() / 4 * 8 + 4 * n;
                unsigned scalars = own * FEATURES + channel, vectors = (own * 3 + which - 1) * FEATURES + channel;
                // q and q_out may be one array.
                const float* scalar = q + (unsigned)((FIRST ? row.sender : own) * FEATURES + channel);
                float4 before = which == 0 ? *(const float4*)scalar : FIRST ? zero4() : load4(mu + vectors);
                const float* four = result + 4 * n;
                store4(which == 0 ? q_out + scalars : mu_out + vectors, add(before, make_float4(four[0], four[1], four[2], four[3])));
            }
            row = next;
        }
    }
}

extern "C" __global__ void __launch_bounds__(MESSAGE_FIRST_THREADS, 1)
messages_first(Parameters p, const __grid_constant__ Filter filter, const uint4* sent, const float* mu, const float* q, float* q_out,
               float* mu_out)
{
    messages<true>(p, filter, sent, mu, q, q_out, mu_out);
}

extern "C" __global__ void __launch_bounds__(MESSAGE_THREADS, 1)
messages_next(Parameters p, const __grid_constant__ Filter filter, const uint4* sent, const float* mu, const float* q, float* q_out,
              float* mu_out)
{
    messages<false>(p, filter, sent, mu, q, q_out, mu_out);
}
