// The list of many atoms: bins along fractional coordinates, atoms sorted by them, a search of near bins, rows in order.
//
// Sums over bins and atoms are made in two kernels: one adds up pieces, the other begins where the pieces before end.
#include "neighbors.cu"

// Blocks that measure how far atoms spread, and numbers of each; the host has both.
#define SPREAD_BLOCKS 128
#define SPREAD 7
// Threads of a block that sums up a piece, numbers of each; the host has the piece.
#define SUM_THREADS 1024
#define EACH 8
#define PIECE (SUM_THREADS * EACH)
// Threads of a block that searches, and the most atoms, in spatial order, that it searches for; the host has both.
#define SEARCH_THREADS 128
#define SEARCH_ATOMS 32
// Candidates in shared memory at a time.
#define WINDOW 640

// Pairs of a row that are sorted in shared memory; longer rows are sorted where they lie.
#define ROW_ROOM 256

// Bins are numbered block by block of 4 x 4 x 4, so that bins with near numbers are near in space. Blocks may stick out.
__device__ inline int blocks_of(int count) { return (count + 3) >> 2; }

__device__ inline double bins_of(const int* counts)
{
    return 64.0 * blocks_of(counts[0]) * blocks_of(counts[1]) * blocks_of(counts[2]);
}

__device__ inline int bin_at(const int* counts, const int* at)
{
    int block = ((at[0] >> 2) * blocks_of(counts[1]) + (at[1] >> 2)) * blocks_of(counts[2]) + (at[2] >> 2);
    return block << 6 | (at[0] & 3) << 4 | (at[1] & 3) << 2 | (at[2] & 3);
}

__device__ inline void place_of_bin(const int* counts, int bin, int* at)
{
    int block = bin >> 6, deep = blocks_of(counts[2]), wide = blocks_of(counts[1]);
    at[0] = block / deep / wide * 4 + (bin >> 4 & 3);
    at[1] = block / deep % wide * 4 + (bin >> 2 & 3);
    at[2] = block % deep * 4 + (bin & 3);
}

// How far atoms spread along each fractional coordinate, and their largest coordinate: SPREAD numbers of each block. Empties the
// bins too. SPREAD_BLOCKS of 256 threads.
extern "C" __global__ void bin_spread(Parameters p)
{
    __shared__ double spread[SPREAD][256];
    if (!due_for_block(p)) return;
    int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int b = thread; b < p.bins; b += threads) p.bin_next[b] = 0;
    double low[3] = {1e300, 1e300, 1e300}, high[3] = {-1e300, -1e300, -1e300}, farthest = 0.0;
    for (int atom = thread; atom < p.atoms; atom += threads) {
        check_position(p, atom);
        double at[3];
        int image[3];
        wrapped(p, atom, at, image);
        for (int k = 0; k < 3; k++) {
            low[k] = fmin(low[k], at[k]);
            high[k] = fmax(high[k], at[k]);
            farthest = fmax(farthest, fabs(p.positions[3 * atom + k]));
        }
    }
    // All are made largest.
    for (int k = 0; k < 3; k++) {
        spread[k][threadIdx.x] = -low[k];
        spread[3 + k][threadIdx.x] = high[k];
    }
    spread[6][threadIdx.x] = farthest;
    __syncthreads();
    for (int width = 128; width > 0; width >>= 1) {
        if (threadIdx.x < width)
            for (int k = 0; k < SPREAD; k++) spread[k][threadIdx.x] = fmax(spread[k][threadIdx.x], spread[k][threadIdx.x + width]);
        __syncthreads();
    }
    if (threadIdx.x < SPREAD) p.spread[SPREAD * blockIdx.x + threadIdx.x] = spread[threadIdx.x][0];
}

// The bins: how many, and where they begin. One thread.
__device__ inline void make_grid(const Parameters& p, const double* spread)
{
    Control* control = p.control;
    double lengths[3], condition = 0.0;
    for (int k = 0; k < 3; k++) {
        lengths[k] = sqrt(norm2(p.cell[3 * k], p.cell[3 * k + 1], p.cell[3 * k + 2]));
        condition += lengths[k] / p.heights[k];
    }
    // What a position may be off after whole cells have been taken away from it and brought back.
    double rounding = 1e-14 * condition * spread[6];
    // Far above the rounding of fractional coordinates and far below any skin: no pair falls between two bins.
    double search = p.range * (1.0 + 1e-9) + 1e-9 + rounding;
    int counts[3];
    for (int k = 0; k < 3; k++) {
        control->origin[k] = p.periodic[k] ? 0.0 : -spread[k];
        control->extent[k] = p.periodic[k] ? 1.0 : fmax(spread[3 + k] + spread[k], 1e-9);
        counts[k] = max((int)fmin(floor(control->extent[k] * p.heights[k] / search), 1e6), 1);
    }
    // A few atoms far apart must not ask for millions of empty bins.
    while (bins_of(counts) > (double)p.bins) {
        int longest = counts[0] > counts[1] ? (counts[0] > counts[2] ? 0 : 2) : (counts[1] > counts[2] ? 1 : 2);
        counts[longest] = (counts[longest] + 1) / 2;
    }
    // From one bin's middle to an atom of the farthest one that is searched.
    double widest = 0.0;
    for (int k = 0; k < 3; k++) {
        double reach = ceil(search * counts[k] / (control->extent[k] * p.heights[k]));
        // Atoms in one plane have next to no extent across it; there is nothing beyond the last bin.
        control->reach[k] = (int)(p.periodic[k] ? reach : fmin(reach, (double)counts[k]));
        control->counts[k] = counts[k];
        widest += lengths[k] * control->extent[k] / counts[k] * (control->reach[k] + 1);
    }
    // Distances in float32 are off by less than that; what is nearer to the range is decided in float64.
    double margin = 1e-6 * widest + rounding, inner = p.range - margin, outer = p.range + margin;
    control->surely_in = inner > 0.0 ? (float)(inner * inner * (1.0 - 1e-6)) : -1.0f;
    control->surely_out = (float)(outer * outer * (1.0 + 1e-6));
}

// One block of SPREAD_BLOCKS threads.
extern "C" __global__ void bin_grid(Parameters p)
{
    __shared__ double spread[SPREAD][SPREAD_BLOCKS];
    if (!due_for_block(p)) return;
    for (int k = 0; k < SPREAD; k++) spread[k][threadIdx.x] = p.spread[SPREAD * threadIdx.x + k];
    __syncthreads();
    for (int width = SPREAD_BLOCKS / 2; width > 0; width >>= 1) {
        if (threadIdx.x < width)
            for (int k = 0; k < SPREAD; k++) spread[k][threadIdx.x] = fmax(spread[k][threadIdx.x], spread[k][threadIdx.x + width]);
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    double whole[SPREAD];
    for (int k = 0; k < SPREAD; k++) whole[k] = spread[k][0];
    make_grid(p, whole);
}

// Where an atom is among the bins, in bins from the first one's beginning along each edge, and the bin that it is in.
__device__ inline void among_bins(const Control* control, const double* at, double* along, int* place)
{
    for (int k = 0; k < 3; k++) {
        along[k] = (at[k] - control->origin[k]) / control->extent[k] * control->counts[k];
        place[k] = min((int)fmax(floor(along[k]), 0.0), control->counts[k] - 1);
    }
}

// One thread an atom: its bin, its image; counts the atoms of each bin and gives them places as they come.
extern "C" __global__ void bin_count(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom >= p.atoms) return;
    double at[3], along[3];
    int image[3], place[3];
    wrapped(p, atom, at, image);
    among_bins(p.control, at, along, place);
    for (int k = 0; k < 3; k++) p.images[3 * atom + k] = image[k];
    int bin = bin_at(p.control->counts, place);
    p.bin_of[atom] = bin;
    p.place[atom] = atomicAdd(&p.bin_next[bin], 1);
}

// The sum of this thread's and all threads' before it in the block, and that of all. `sums` has a number for each warp.
template <class Number> __device__ inline Number running_sum(Number value, Number* sums, Number& total)
{
    int lane = warp_lane(), warp = threadIdx.x / 32;
#pragma unroll 1
    for (int offset = 1; offset < 32; offset <<= 1) {
        Number before = __shfl_sync(FULL, value, max(lane - offset, 0), 32);
        if (lane >= offset) value += before;
    }
    if (lane == 31) sums[warp] = value;
    __syncthreads();
    total = 0;
    for (int other = 0; other < blockDim.x / 32; other++) {
        if (other == warp) value += total;
        total += sums[other];
    }
    __syncthreads();
    return value;
}

// The sum of this block's piece of `count` numbers.
__device__ inline void sum_piece(const Parameters& p, const int* numbers, int count)
{
    __shared__ long long sums[SUM_THREADS / 32];
    long long first = (long long)blockIdx.x * PIECE, sum = 0, total;
    long long end = first + PIECE < count ? first + PIECE : count;
    for (long long k = first + threadIdx.x; k < end; k += SUM_THREADS) sum += numbers[k];
    running_sum(sum, sums, total);
    if (threadIdx.x == 0) p.sums[blockIdx.x] = total;
}

// Hands every number of this block's piece, and one behind the last of all, to `take(index, sum of all before)`. Where there are
// several pieces they have been summed up.
template <class Take> __device__ inline void scan_piece(const Parameters& p, const int* numbers, int count, Take take)
{
    __shared__ long long sums[SUM_THREADS / 32];
    long long base = 0, own = 0, all, first = (long long)blockIdx.x * PIECE + threadIdx.x * EACH;
    for (int piece = threadIdx.x; piece < blockIdx.x; piece += SUM_THREADS) base += p.sums[piece];
    running_sum(base, sums, base);
    int mine[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        mine[k] = first + k < count ? numbers[first + k] : 0;
        own += mine[k];
    }
    long long at = base + running_sum(own, sums, all) - own;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (first + k <= count) take((int)(first + k), at);
        at += mine[k];
    }
}

__device__ inline int used_bins(const Parameters& p) { return (int)bins_of(p.control->counts); }

extern "C" __global__ void __launch_bounds__(SUM_THREADS) bin_sums(Parameters p)
{
    if (due(p)) sum_piece(p, p.bin_next, used_bins(p));
}

// Where each bin begins.
extern "C" __global__ void __launch_bounds__(SUM_THREADS) bin_scan(Parameters p)
{
    if (due(p)) scan_piece(p, p.bin_next, used_bins(p), [&p](int bin, long long before) { p.bin_start[bin] = (int)before; });
}

// One thread an atom. The order in a bin is left to chance.
extern "C" __global__ void bin_fill(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom < p.atoms) p.bin_atoms[p.bin_start[p.bin_of[atom]] + p.place[atom]] = atom;
}

// One thread an atom: the spatial order, by bins and in a bin by number: a function of the positions alone. And where it is from
// the middle of its bin.
extern "C" __global__ void spatial_order(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom >= p.atoms) return;
    int begin = p.bin_start[p.bin_of[atom]], end = p.bin_start[p.bin_of[atom] + 1], row = begin;
    for (int k = begin; k < end; k++) row += p.bin_atoms[k] < atom;
    p.order[row] = atom;
    p.place[atom] = row;
    p.kinds[row] = p.species[atom];
    const Control* control = p.control;
    double at[3], along[3], r[3] = {0.0, 0.0, 0.0};
    int image[3], place[3];
    wrapped(p, atom, at, image);
    among_bins(control, at, along, place);
    for (int k = 0; k < 3; k++) {
        double from = (along[k] - place[k] - 0.5) * control->extent[k] / control->counts[k];
        for (int c = 0; c < 3; c++) r[c] += from * p.cell[3 * k + c];
    }
    p.spots[row] = {(float)r[0], (float)r[1], (float)r[2], atom};
}

// Bins near the one that is searched from, and atoms in them, in a block's shared memory.
struct Near {
    Spot spots[WINDOW]; // from the middle of that bin
    unsigned char bins[WINDOW];
    int begins[SEARCH_THREADS], ends[SEARCH_THREADS]; // of bins: in spatial order, and counted in what is near
    Spot middles[SEARCH_THREADS];
    Listed shifts[SEARCH_THREADS]; // the translation, with atom 0
    int sums[SEARCH_THREADS / 32];
    int found[SEARCH_ATOMS];       // of each atom that is searched for, itself included
};

// Makes this thread's of the bins near `bin` known, the one of this number, and returns how many atoms are in all of them.
__device__ inline int look_around(const Parameters& p, Near& near, int bin, int number)
{
    const Control* control = p.control;
    int own[3], target[3], sides[3], count = 0;
    place_of_bin(control->counts, bin, own);
    for (int k = 0; k < 3; k++) sides[k] = 2 * control->reach[k] + 1;
    int offset[3] = {number / sides[2] / sides[1], number / sides[2] % sides[1], number % sides[2]}, shift[3];
    bool outside = offset[0] >= sides[0];
    double middle[3] = {0.0, 0.0, 0.0};
    for (int k = 0; k < 3; k++) {
        offset[k] -= control->reach[k];
        int bins = control->counts[k], at = own[k] + offset[k];
        shift[k] = 0;
        if (p.periodic[k]) shift[k] = at >= 0 ? at / bins : -((bins - 1 - at) / bins);
        else outside |= at < 0 || at >= bins;
        target[k] = at - shift[k] * bins;
        for (int c = 0; c < 3; c++) middle[c] += offset[k] * control->extent[k] / bins * p.cell[3 * k + c];
    }
    if (!outside) {
        int other = bin_at(control->counts, target);
        near.begins[threadIdx.x] = p.bin_start[other];
        count = p.bin_start[other + 1] - p.bin_start[other];
        near.middles[threadIdx.x] = {(float)middle[0], (float)middle[1], (float)middle[2], 0};
        near.shifts[threadIdx.x] = listed(0, shift[0], shift[1], shift[2]);
    }
    int all;
    near.ends[threadIdx.x] = running_sum(count, near.sums, all);
    return all;
}

// Brings the near atoms from `first` on to shared memory, so many.
__device__ inline void bring(const Parameters& p, Near& near, int first, int count)
{
    for (int k = threadIdx.x; k < count; k += SEARCH_THREADS) {
        int low = 0, high = SEARCH_THREADS - 1;
        while (low < high) {
            int middle = (low + high) / 2;
            if (near.ends[middle] > first + k) high = middle;
            else low = middle + 1;
        }
        Spot spot = p.spots[near.begins[low] + first + k - (low > 0 ? near.ends[low - 1] : 0)], middle = near.middles[low];
        near.spots[k] = {spot.x + middle.x, spot.y + middle.y, spot.z + middle.z, spot.atom};
        near.bins[k] = (unsigned char)low;
    }
}

__device__ inline Listed pair_with(const Near& near, int candidate)
{
    return near.shifts[near.bins[candidate]] + listed_neighbor(near.spots[candidate].atom);
}

// Whether a candidate is within the range of the atom at `own`; `sure` are the squares between which float64 decides.
__device__ inline bool is_near(const Parameters& p, const Near& near, const float2& sure, const Spot& own, int candidate)
{
    Spot other = near.spots[candidate];
    float x = other.x - own.x, y = other.y - own.y, z = other.z - own.z, d2 = fmaf(x, x, fmaf(y, y, z * z));
    if (d2 < sure.x) return true;
    return d2 < sure.y && in_range(p, p.images, own.atom, pair_with(near, candidate));
}

// Goes through the bins near each of this block's atoms: `look(near, sure, own, found, count)`, by a warp, looks at so many
// candidates for the atom at `own`; `found` is what the one before has found. At last `tell(atom, found)`, by one lane.
template <class Look, class Tell> __device__ inline void search(const Parameters& p, Look look, Tell tell)
{
    __shared__ Near near;
    const Control* control = p.control;
    const float2 sure = {control->surely_in, control->surely_out};
    int share = (p.atoms - 1) / gridDim.x + 1, warp = threadIdx.x / 32;
    int first = blockIdx.x * share, last = min(first + share, p.atoms);
    int bins = (2 * control->reach[0] + 1) * (2 * control->reach[1] + 1) * (2 * control->reach[2] + 1);
    // Atoms of one bin at a time.
    for (int begin = first; begin < last;) {
        int bin = p.bin_of[p.order[begin]], end = min(last, p.bin_start[bin + 1]);
        if (threadIdx.x < SEARCH_ATOMS) near.found[threadIdx.x] = 0;
        for (int number = 0; number < bins; number += SEARCH_THREADS) {
            int there = look_around(p, near, bin, number + threadIdx.x);
            __syncthreads();
            for (int from = 0; from < there; from += WINDOW) {
                int count = min(there - from, WINDOW);
                bring(p, near, from, count);
                __syncthreads();
                for (int row = begin + warp; row < end; row += SEARCH_THREADS / 32) {
                    int found = look(near, sure, p.spots[row], near.found[row - first], count);
                    __syncwarp();
                    if (warp_lane() == 0) near.found[row - first] = found;
                }
                __syncthreads();
            }
        }
        for (int row = begin + threadIdx.x; row < end; row += SEARCH_THREADS) tell(p.spots[row].atom, near.found[row - first]);
        __syncthreads();
        begin = end;
    }
}

// How many pairs each row has.
extern "C" __global__ void __launch_bounds__(SEARCH_THREADS, 8) row_count(Parameters p)
{
    if (!due(p)) return;
    auto look = [&p](const Near& near, const float2& sure, const Spot& own, int found, int count) {
        int mine = 0;
        for (int k = warp_lane(); k < count; k += 32) mine += is_near(p, near, sure, own, k);
        for (int offset = 16; offset > 0; offset >>= 1) mine += __shfl_xor_sync(FULL, mine, offset);
        return found + mine;
    };
    // An atom finds itself once.
    search(p, look, [&p](int atom, int found) { p.found[atom] = found - 1; });
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) row_sums(Parameters p)
{
    if (due(p)) sum_piece(p, p.found, p.atoms);
}

// Where each row begins; says so when the list has not enough room.
extern "C" __global__ void __launch_bounds__(SUM_THREADS) row_scan(Parameters p)
{
    if (!due_for_block(p)) return;
    scan_piece(p, p.found, p.atoms, [&p](int atom, long long before) {
        p.rows[atom] = (unsigned)before;
        if (atom < p.atoms) return;
        p.control->needed = before;
        if (before > p.capacity) p.control->status = STATUS_CAPACITY;
    });
}

// The pairs of each atom in the order in which they are found, in the memory of the pairs inside the cutoff, which are made anew
// afterwards.
extern "C" __global__ void __launch_bounds__(SEARCH_THREADS, 8) row_fill(Parameters p)
{
    if (!due(p)) return;
    auto look = [&p](const Near& near, const float2& sure, const Spot& own, int found, int count) {
        Listed* row = (Listed*)p.pairs + p.rows[own.atom];
        Listed itself = listed(own.atom, 0, 0, 0);
        for (int first = 0; first < count; first += 32) {
            int k = first + warp_lane();
            bool in = k < count && is_near(p, near, sure, own, k);
            Listed pair = in ? pair_with(near, k) : itself;
            in = pair != itself;
            unsigned lanes = __ballot_sync(FULL, in);
            if (in) row[found + __popc(lanes & ((1u << warp_lane()) - 1))] = pair;
            found += __popc(lanes);
        }
        return found;
    };
    search(p, look, [](int, int) {});
}

// The ranks of MINE keys of each lane among `count` keys; no two are equal.
template <int MINE> __device__ inline void rank_keys(const Listed* keys, int first, int count, Listed* sorted)
{
    Listed own[MINE];
    int rank[MINE];
#pragma unroll
    for (int k = 0; k < MINE; k++) {
        own[k] = keys[min(first + 32 * k, count - 1)];
        rank[k] = 0;
    }
    for (int other = 0; other < count; other++) {
        Listed key = keys[other];
#pragma unroll
        for (int k = 0; k < MINE; k++) rank[k] += key < own[k];
    }
#pragma unroll
    for (int k = 0; k < MINE; k++)
        if (first + 32 * k < count) sorted[rank[k]] = own[k];
}

// Brings a row into order, from one place to another. `room` has 2 ROW_ROOM keys of shared memory for this warp.
__device__ inline void sort_row(const Listed* from, Listed* to, int count, Listed* room)
{
    int lane = warp_lane();
    bool fits = count <= ROW_ROOM;
    Listed* sorted = fits ? room + ROW_ROOM : to;
    if (fits) {
        for (int k = lane; k < count; k += 32) room[k] = from[k];
        from = room;
    }
    __syncwarp();
    for (int first = lane; first < count + lane; first += 128) {
        int left = count + lane - first;
        if (left <= 32) rank_keys<1>(from, first, count, sorted);
        else if (left <= 64) rank_keys<2>(from, first, count, sorted);
        else if (left <= 96) rank_keys<3>(from, first, count, sorted);
        else rank_keys<4>(from, first, count, sorted);
    }
    __syncwarp();
    for (int k = lane; fits && k < count; k += 32) to[k] = sorted[k];
    __syncwarp();
}

// One warp an atom: its row in order. The positions of this list are kept.
extern "C" __global__ void row_sort(Parameters p)
{
    __shared__ Listed room[4][2 * ROW_ROOM];
    int row = warp_index(), lane = warp_lane();
    if (!due(p) || row >= p.atoms) return;
    int atom = p.order[row];
    unsigned begin = p.rows[atom];
    sort_row((const Listed*)p.pairs + begin, p.entries + begin, (int)(p.rows[atom + 1] - begin), room[threadIdx.x / 32]);
    if (lane < 3) p.reference[3 * atom + lane] = p.positions[3 * atom + lane];
}
