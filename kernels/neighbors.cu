// The list of neighbours, made anew on the device: bins along fractional coordinates, a search of near bins, rows in
// order of (neighbour, translation). It is the list that the CPU makes, entry by entry: a function of positions, cell and
// range alone. All kernels do nothing unless a rebuild is due.
#include "common.cuh"

__device__ inline bool due(const Parameters& p) { return p.control->rebuild != 0 && p.control->status == 0; }

__device__ inline void fractional(const Parameters& p, const double* r, double* out)
{
    for (int k = 0; k < 3; k++) out[k] = r[0] * p.inverse[k] + r[1] * p.inverse[3 + k] + r[2] * p.inverse[6 + k];
}

// Fractional coordinates of an atom inside the cell, and the whole cells taken away for that.
__device__ inline void wrapped(const Parameters& p, int atom, double* out, int* image)
{
    const double* x = p.positions + 3 * atom;
    double at[3];
    fractional(p, x, at);
    for (int k = 0; k < 3; k++) image[k] = p.periodic[k] ? (int)floor(at[k]) : 0;
    double r[3];
    for (int c = 0; c < 3; c++)
        r[c] = x[c] - (p.cell[c] * image[0] + p.cell[3 + c] * image[1] + p.cell[6 + c] * image[2]);
    fractional(p, r, out);
}

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

// The bins: how many, and where they begin. One block of 1024 threads; it empties the bins too.
extern "C" __global__ void bin_grid(Parameters p)
{
    bool go = due(p);
    // Everybody has looked before anybody complains.
    __syncthreads();
    if (!go) return;
    __shared__ double low[3][1024], high[3][1024];
    for (int b = threadIdx.x; b < p.bins; b += blockDim.x) p.bin_next[b] = 0;
    for (int k = 0; k < 3; k++) {
        low[k][threadIdx.x] = 1e300;
        high[k][threadIdx.x] = -1e300;
    }
    for (int atom = threadIdx.x; atom < p.atoms; atom += blockDim.x) {
        const double* x = p.positions + 3 * atom;
        // Infinity and NaN both fail.
        for (int c = 0; c < 3; c++)
            if (!(fabs(x[c]) < 1e300)) fail(p.control, STATUS_POSITION, atom);
        double at[3];
        int image[3];
        wrapped(p, atom, at, image);
        for (int k = 0; k < 3; k++) {
            low[k][threadIdx.x] = fmin(low[k][threadIdx.x], at[k]);
            high[k][threadIdx.x] = fmax(high[k][threadIdx.x], at[k]);
        }
    }
    __syncthreads();
    for (int width = 512; width > 0; width >>= 1) {
        if (threadIdx.x < width)
            for (int k = 0; k < 3; k++) {
                low[k][threadIdx.x] = fmin(low[k][threadIdx.x], low[k][threadIdx.x + width]);
                high[k][threadIdx.x] = fmax(high[k][threadIdx.x], high[k][threadIdx.x + width]);
            }
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    Control* control = p.control;
    // Far above the rounding of fractional coordinates and far below any skin: no pair falls between two bins.
    double search = p.range * (1.0 + 1e-9) + 1e-9;
    int counts[3];
    for (int k = 0; k < 3; k++) {
        control->origin[k] = p.periodic[k] ? 0.0 : low[k][0];
        control->extent[k] = p.periodic[k] ? 1.0 : fmax(high[k][0] - low[k][0], 1e-9);
        counts[k] = max((int)fmin(floor(control->extent[k] * p.heights[k] / search), 1e6), 1);
    }
    // A few atoms far apart must not ask for millions of empty bins.
    while (bins_of(counts) > (double)p.bins) {
        int longest = counts[0] > counts[1] ? (counts[0] > counts[2] ? 0 : 2) : (counts[1] > counts[2] ? 1 : 2);
        counts[longest] = (counts[longest] + 1) / 2;
    }
    for (int k = 0; k < 3; k++) {
        double reach = ceil(search * counts[k] / (control->extent[k] * p.heights[k]));
        // Atoms in one plane have next to no extent across it; there is nothing beyond the last bin.
        control->reach[k] = (int)(p.periodic[k] ? reach : fmin(reach, (double)counts[k]));
        control->counts[k] = counts[k];
    }
}

// One thread an atom: its bin, its image; counts the atoms of each bin (integers: the order of adding does not matter).
extern "C" __global__ void bin_count(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom >= p.atoms) return;
    const Control* control = p.control;
    double at[3];
    int image[3], place[3];
    wrapped(p, atom, at, image);
    for (int k = 0; k < 3; k++) {
        p.images[3 * atom + k] = image[k];
        double along = floor((at[k] - control->origin[k]) / control->extent[k] * control->counts[k]);
        place[k] = min((int)fmax(along, 0.0), control->counts[k] - 1);
    }
    int bin = bin_at(control->counts, place);
    p.bin_of[atom] = bin;
    atomicAdd(&p.bin_next[bin], 1);
}

// The exclusive sum of a value a thread over a block of 1024, and the block's total.
__device__ inline long long block_scan(long long value, long long& total)
{
    __shared__ long long sums[1024];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int offset = 1; offset < 1024; offset <<= 1) {
        long long before = threadIdx.x >= offset ? sums[threadIdx.x - offset] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    total = sums[1023];
    long long result = sums[threadIdx.x] - value;
    __syncthreads();
    return result;
}

// Where each bin begins. One block of 1024 threads.
extern "C" __global__ void bin_scan(Parameters p)
{
    if (!due(p)) return;
    const Control* control = p.control;
    int bins = (int)bins_of(control->counts);
    long long base = 0;
    for (int first = 0; first < bins; first += 1024) {
        int b = first + threadIdx.x;
        long long total;
        long long before = block_scan(b < bins ? p.bin_next[b] : 0, total);
        if (b < bins) {
            p.bin_start[b] = (int)(base + before);
            p.bin_next[b] = (int)(base + before);
        }
        base += total;
    }
    if (threadIdx.x == 0) p.bin_start[bins] = (int)base;
}

// One thread an atom. The order in a bin is left to chance: rows are sorted later.
extern "C" __global__ void bin_fill(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom < p.atoms) p.bin_atoms[atomicAdd(&p.bin_next[p.bin_of[atom]], 1)] = atom;
}

// One thread an atom: the spatial order, by bins and in a bin by number: a function of the positions alone.
extern "C" __global__ void spatial_order(Parameters p)
{
    if (!due(p)) return;
    int atom = blockIdx.x * blockDim.x + threadIdx.x;
    if (atom >= p.atoms) return;
    int begin = p.bin_start[p.bin_of[atom]], end = p.bin_start[p.bin_of[atom] + 1], place = begin;
    for (int k = begin; k < end; k++) place += p.bin_atoms[k] < atom;
    p.order[place] = atom;
    p.place[atom] = place;
    p.kinds[place] = p.species[atom];
}

// Goes through the near bins with one warp and hands every pair in range to `take(place, entry)`; returns their number.
template <class Take> __device__ inline int search(const Parameters& p, int atom, Take take)
{
    const Control* control = p.control;
    int lane = warp_lane(), found = 0;
    int counts[3], reach[3], own[3];
    for (int k = 0; k < 3; k++) {
        counts[k] = control->counts[k];
        reach[k] = control->reach[k];
    }
    place_of_bin(counts, p.bin_of[atom], own);
    const int* image = p.images + 3 * atom;
    double range2 = p.range * p.range;
    for (int x = -reach[0]; x <= reach[0]; x++)
        for (int y = -reach[1]; y <= reach[1]; y++)
            for (int z = -reach[2]; z <= reach[2]; z++) {
                int offset[3] = {x, y, z}, shift[3], near[3];
                bool outside = false;
                for (int k = 0; k < 3; k++) {
                    int target = own[k] + offset[k], times = 0;
                    if (p.periodic[k])
                        times = target >= 0 ? target / counts[k] : -((counts[k] - 1 - target) / counts[k]);
                    else
                        outside |= target < 0 || target >= counts[k];
                    near[k] = target - times * counts[k];
                    shift[k] = times + image[k];
                }
                if (outside) continue;
                int other_bin = bin_at(counts, near);
                int begin = p.bin_start[other_bin], end = p.bin_start[other_bin + 1];
                for (int first = begin; first < end; first += 32) {
                    bool in = false;
                    Entry entry = {0, 0, 0, 0};
                    if (first + lane < end) {
                        int other = p.bin_atoms[first + lane];
                        // The bins hold wrapped positions; the list speaks of unwrapped ones.
                        const int* theirs = p.images + 3 * other;
                        entry.neighbor = other;
                        entry.x = shift[0] - theirs[0];
                        entry.y = shift[1] - theirs[1];
                        entry.z = shift[2] - theirs[2];
                        bool itself = other == atom && entry.x == 0 && entry.y == 0 && entry.z == 0;
                        double3 r = pair_vector(p, atom, other, entry.x, entry.y, entry.z);
                        in = !itself && norm2(r.x, r.y, r.z) < range2;
                    }
                    unsigned all = __ballot_sync(FULL, in);
                    if (in) take(found + __popc(all & ((1u << lane) - 1)), entry);
                    found += __popc(all);
                }
            }
    return found;
}

// One warp an atom: how many pairs its row has.
extern "C" __global__ void row_count(Parameters p)
{
    int atom = warp_index();
    if (!due(p) || atom >= p.atoms) return;
    int found = search(p, atom, [](int, const Entry&) {});
    if (warp_lane() == 0) p.rows[atom] = found;
}

// Where each row begins; says so when the list has not enough room. One block of 1024 threads.
extern "C" __global__ void row_scan(Parameters p)
{
    if (!due(p)) return;
    long long base = 0;
    for (int first = 0; first < p.atoms; first += 1024) {
        int atom = first + threadIdx.x;
        long long total;
        long long before = block_scan(atom < p.atoms ? p.rows[atom] : 0, total);
        if (atom < p.atoms) p.rows[atom] = (unsigned)(base + before);
        base += total;
    }
    if (threadIdx.x == 0) {
        p.rows[p.atoms] = (unsigned)base;
        p.control->needed = base;
        if (base > p.capacity) p.control->status = STATUS_CAPACITY;
    }
}

// One warp an atom: its pairs in the order in which they are found, in the memory of the pairs inside the cutoff, which
// are made anew afterwards.
extern "C" __global__ void row_fill(Parameters p)
{
    int atom = warp_index();
    if (!due(p) || atom >= p.atoms) return;
    Entry* row = (Entry*)p.pairs + p.rows[atom];
    search(p, atom, [row](int place, const Entry& entry) { row[place] = entry; });
}

__device__ inline bool less(const Entry& a, const Entry& b)
{
    if (a.neighbor != b.neighbor) return a.neighbor < b.neighbor;
    if (a.x != b.x) return a.x < b.x;
    if (a.y != b.y) return a.y < b.y;
    return a.z < b.z;
}

// One warp an atom: each entry goes where its rank says. No two are equal. The positions of this list are kept.
extern "C" __global__ void row_sort(Parameters p)
{
    int atom = warp_index(), lane = warp_lane();
    if (!due(p) || atom >= p.atoms) return;
    unsigned begin = p.rows[atom], end = p.rows[atom + 1];
    const Entry* found = (const Entry*)p.pairs;
    for (unsigned e = begin + lane; e < end; e += 32) {
        Entry entry = found[e];
        unsigned rank = 0;
        for (unsigned other = begin; other < end; other++) rank += less(found[other], entry);
        p.entries[begin + rank] = entry;
    }
    if (lane < 3) p.reference[3 * atom + lane] = p.positions[3 * atom + lane];
}

// One warp an atom: where each of its pairs stands in the neighbour's row.
extern "C" __global__ void row_reverse(Parameters p)
{
    int atom = warp_index();
    if (!due(p) || atom >= p.atoms) return;
    for (unsigned e = p.rows[atom] + warp_lane(); e < p.rows[atom + 1]; e += 32) {
        Entry entry = p.entries[e];
        Entry wanted = {atom, -entry.x, -entry.y, -entry.z};
        unsigned low = p.rows[entry.neighbor], high = p.rows[entry.neighbor + 1];
        while (low < high) {
            unsigned middle = low + (high - low) / 2;
            if (less(p.entries[middle], wanted)) low = middle + 1;
            else high = middle;
        }
        p.reverse[e] = low;
    }
}
