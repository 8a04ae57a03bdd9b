// What all kernels share: the tables they work on, and small functions. The kernels are compiled together, as one
// program, when a system is first seen; these are its compile-time constants:
//
//   FEATURES      F, padded with zeros to a multiple of 32 (32 to 256)
//   STUDENT       1: scalars are sent as they are and vectors are mixed in Cartesian space; 0: painn
//   TABLE_SHARED  1: a block keeps the filter table of its 32 channels in shared memory; 0: it is read through the caches
//   RADIAL        1: filters come from the radial functions, see radial.cuh, of few atoms only with RESIDENT; 0: from a table
//   SLICED        1: with RADIAL, a block of messages has one slice of 32 channels, so that there are more of them; 0: one after the other
//   LARGE         1: tiles of matrix products for many atoms
//   SPLIT         1: the network for many has so few atoms that only latency counts; never with LARGE
//   FEW           1: clusters of blocks take few atoms through a layer, see few.cu
//   RESIDENT      1: clusters that keep all weights take few atoms through their steps, see resident.cu; only with FEW
//                 there, of ATOMS atoms in CLUSTERS clusters, whose first PAIRS_INSIDE pairs lie in shared memory; of a network of
//                 LAYERS layers with HIDDEN channels in its readout
//   CLUSTER       blocks of a cluster, of FEW_THREADS threads
//   LANGEVIN      1: a heat bath acts in every step
//   CONDITIONAL   1: the driver knows conditional graph nodes
//   WATCH         1: the model says what it was trained on, and the host wants to hear where a system leaves it
//   ATOM_BITS     of an atom's index in the key of two atoms that are too close
//   SHIFT_BITS    of each component of the translation in a pair of the list
//   REPULSION     1: the model asks for a repulsion of nuclei at short distances
//   REDUCED       1: reduced precision, with RADIAL and of a painn alone: factors of products and what atoms gather have 16 bits
//   REPLICAS      1: the atoms are those of many systems, see replicas.cu; never with FEW
//
// Arrays of vectors over atoms are [N][3] in float64 and [N][3][F] in float32. Nothing here adds floating-point numbers
// with atomics, and every sum has an order that the size of the system and the device alone decide: the same run gives the same bits.
// The compiler may not contract a*b+c (--fmad=false): where fusing pays it is written out, and everything else agrees
// with the CPU to the bit.
#pragma once

#define FULL 0xffffffffu
#define SLICES (FEATURES / 32)
// In so many parts, each of some channels, a pair's gradients are made; with RADIAL one lane adds them up, if not SLICED.
#define PARTS (RESIDENT ? 1 : FEW ? CLUSTER : RADIAL && !SLICED ? 1 : SLICES)

// Why nothing more may happen; 0 is good.
#define STATUS_CAPACITY 1 // the list needs room for `needed` pairs: the host gives it and goes on with the same step
#define STATUS_FAST 2     // `atom` moves faster than anything should
#define STATUS_OVERLAP 3  // `atom` has a neighbour at its own place, or a distance that is no number
#define STATUS_POSITION 4 // the position of `atom` is no finite number
#define STATUS_STOPPED 5  // STATUS_FAST, in a step before
#define STATUS_OUTSIDE 6  // the last step, which is whole, left what the model was trained on

// Where a run is. One of them, in device memory, read back by the host.
struct Control {
    double heat;             // energy that the bath put in so far, eV
    double kinetic;          // right after the last bath, eV
    double network;          // the network's energy without offsets, in its unit, when last summed
    double full_step;        // kinetic energy at the end of a step, eV, when last summed
    double origin[3];        // of the bins, in fractional coordinates
    double extent[3];
    long long step;          // steps taken
    long long target;        // the last step of this launch
    long long rebuilds;      // of the list, after the first
    long long needed;        // pairs that the list needs
    long long next_frame;    // the next step with a frame; 0 where there is none
    int counts[3];           // bins along each edge
    int reach[3];            // bins to look at on each side
    int rebuild;             // 1: some atom has moved more than half the skin; 2: only the list's place has changed
    int status;
    int atom;                // the lowest index that `status` is about
    int samples;             // taken since the host looked
    int frames;              // the place of the next frame
    int close;               // 1: atoms came too close in this evaluation, 2: in one before, since the host looked
    int noted[2];            // few atoms: `close` for even and odd steps, while blocks are not all at the same step
    float surely_in;         // squared distances in float32 below which a pair is in the list, Å²
    float surely_out;        // and from which on it is not
};

// What the host is to hear of a step.
struct Sample {
    long long step;
    long long rebuilds;
    double kinetic;   // eV: after the bath where there is one
    double network;   // as in Control
    double full_step;
    double heat;
    int logged; // 1: a row of the energy log
    int framed; // 1: the next of the frames is of this step
};

// A pair (centre, neighbour) inside the cutoff: two 16-byte loads.
struct __align__(16) Pair {
    int neighbor;   // its row in the network's arrays
    int entry;      // its index in the list
#if RADIAL
    float inside, slope; // f_c and its derivative, 1/Å
#else
    int interval;   // of the filter table
    float fraction; // place in that interval, 0 to 1
#endif
    float ux, uy, uz; // direction from centre to neighbour
    float distance;   // Å
};

// A pair of the list: neighbour and lattice translation, between unwrapped positions.
struct Entry {
    int neighbor, x, y, z;
};

// As it is kept, in one number that rises along a row: the neighbour, then the translation between the atoms brought into the
// cell, which is small however far they have gone since; the host sees to that.
typedef unsigned long long Listed;
#define SHIFT_ZERO (1 << (SHIFT_BITS - 1))

// An atom brought into the cell, Å from the middle of some bin.
struct __align__(16) Spot {
    float x, y, z;
    int atom;
};

// What holds for two elements, distances in Å: src/backend/guard.rs and zbl.rs.
struct ElementPair {
    double limit;  // closer atoms are outside of what the model was trained on
    double inner;  // the repulsion is whole below this, and nothing from
    double outer;  // this on
    double strength, length;
};

// The first two atoms of two elements that were too close, since the host looked.
struct Contact {
    unsigned long long key; // step and atoms, see guard.cuh; all bits where there are none
    long long step;
    double distance;
};

// One of many systems: what differs between them, and where its atoms are.
struct Replica {
    double cell[9];    // as in Parameters
    double inverse[9];
    double heights[3];
    double temperature, final_temperature;
    double total_mass;
    double lowest, highest;
    unsigned seed[2];
    int periodic[3];
    int first, atoms; // of all
    int room;         // pairs that each of its rows can hold
};

// Everything about a system that no layer decides. Passed by value; the host has the same layout.
struct Parameters {
    Control* control;
    Sample* samples;
    double* positions;  // [N][3], Å, unwrapped
    double* velocities; // [N][3], Å/fs
    double* forces;     // [N][3], eV/Å
    double* reference;  // [N][3], positions of the last list
    const double* masses;    // [N], u
    const double* half_kick; // [N], ½ Δt / m for forces in eV/Å
    const int* species;      // [N], each atom's element: a row of what elements decide in the first layer
    int* order;              // [N], atoms in spatial order; with FEW as they come, and these three are not there
    int* place;              // [N], where each atom stands in that order
    int* kinds;              // [N], `species` in that order
    double* partials;        // [128][5], sums of blocks
    double* strain;          // [N][9], eV
    int* images;    // [N][3], whole cells by which an atom was outside when the list was made
    int* found;     // [N], pairs of each atom, when the list was made
    double* spread; // of all atoms, by blocks; with FEW this and the next six are not there
    int* bin_of;    // [N]
    int* bin_start; // [bins + 1]
    int* bin_next;  // [bins], atoms of each
    int* bin_atoms; // [N]
    Spot* spots;    // [N], in spatial order, from the middle of the atom's bin
    long long* sums; // of pieces of bins, or of rows
    unsigned* rows; // [N + 1], ends of the list's rows
    Listed* entries; // [capacity]
    unsigned* reverse; // [capacity], the same pair seen from the other end
    Pair* pairs;    // [capacity], a row begins where the list's does
    int* inside;    // [N], pairs inside the cutoff in each row
    float4* gradients; // [PARTS][capacity], dE/dd and dE/dû of the directed pair (neighbour <- centre), by list index
    float* energies;   // [N], in the network's unit
    const ElementPair* element_pairs; // [elements][elements]
    Contact* contacts;                // [elements][elements], the lighter element first
    double* repulsion; // [N], each atom's half of the repulsion of its pairs, in the network's unit
    double* frames;    // [frames_capacity][3][N][3], positions, velocities, forces: pages of the host
    const long long* frame_intervals; // [frame_intervals_count], a frame is due at the multiples of each
    const Replica* replicas; // [systems], with REPLICAS, where rows have more room than `found` says; this likewise
    const int* system_of;    // [N]
    double cell[9];    // edge vectors as rows, Å
    double inverse[9];
    double heights[3];
    double cutoff, range, half_skin2, epsilon, spacing;
    double watched, repelled; // no pairs from there on are too close, or repel each other
    double lowest, highest;   // of the network's energy in what it was trained on, in its unit
    double energy_unit;
    double half_step;   // ½ Δt, fs
    double fastest2;    // (Å/fs)²
    double mass_velocity2, boltzmann;
    double c1, c2;      // of the bath
    double temperature, final_temperature;
    double total_mass;
    long long ramp_steps, log_interval;
    long long capacity; // pairs
    unsigned seed[2];
    int atoms, bins, intervals, samples_capacity;
    int periodic[3];
    int remove_centre_of_mass;
    int elements;
    int stop_outside; // no step follows one that left what the model was trained on
    int frames_capacity, frame_intervals_count;
};

#if CONDITIONAL
extern "C" __device__ void cudaGraphSetConditional(unsigned long long handle, unsigned int value);
#endif

// Shared memory whose size the launch decides, and an array of a size that is known.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#define BLOCK_SHARED(type, name, count) __shared__ type name[count]
#endif

// A handle of 0 belongs to no graph: the same kernels are launched one by one.
__device__ inline void set_conditional(unsigned long long handle, unsigned int value)
{
#if CONDITIONAL
    if (handle != 0) cudaGraphSetConditional(handle, value);
#endif
}

__device__ inline void fail(Control* control, int status, int atom)
{
    atomicMax(&control->status, status);
    atomicMin(&control->atom, atom);
}

// The same number, but what follows from it is computed here and not kept in registers for later.
#ifndef EMULATED_WARPS
__device__ inline int here(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}
#endif

// Of few atoms a kernel goes through a whole step: what all its parts compute from the thread would fill the registers.
__device__ inline int thread_here() { return FEW ? here(threadIdx.x) : threadIdx.x; }
__device__ inline int warp_lane() { return thread_here() & 31; }

// Index of this warp in the grid.
__device__ inline int warp_index() { return (blockIdx.x * blockDim.x + threadIdx.x) >> 5; }

// The network's arrays have a row for each atom, in spatial order: neighbours are near in memory too. No sum depends on
// the order of rows. Few atoms stay as they come.
__device__ inline int atom_of(const Parameters& p, int row) { return FEW ? row : p.order[row]; }
__device__ inline int row_of(const Parameters& p, int atom) { return FEW ? atom : p.place[atom]; }
__device__ inline int kind_of(const Parameters& p, int row) { return __ldg((FEW ? p.species : p.kinds) + row); }

__device__ inline Listed listed_neighbor(int neighbor) { return (Listed)neighbor << 3 * SHIFT_BITS; }

__device__ inline Listed listed(int neighbor, int x, int y, int z)
{
    return listed_neighbor(neighbor) | (Listed)(x + SHIFT_ZERO) << 2 * SHIFT_BITS | (Listed)(y + SHIFT_ZERO) << SHIFT_BITS
        | (Listed)(z + SHIFT_ZERO);
}

__device__ inline int neighbor_of(Listed pair) { return (int)(pair >> 3 * SHIFT_BITS); }

// A pair of an atom's row; `images` are those of the list.
__device__ inline Entry entry_of(const int* images, int atom, Listed pair)
{
    const int mask = (1 << SHIFT_BITS) - 1;
    int neighbor = neighbor_of(pair);
    const int *own = images + 3 * atom, *other = images + 3 * neighbor;
    return {neighbor, (int)(pair >> 2 * SHIFT_BITS & mask) - SHIFT_ZERO + own[0] - other[0],
            (int)(pair >> SHIFT_BITS & mask) - SHIFT_ZERO + own[1] - other[1], (int)(pair & mask) - SHIFT_ZERO + own[2] - other[2]};
}

// The same pair seen from its other end.
__device__ inline Listed other_end(Listed pair, int atom)
{
    const int mask = (1 << SHIFT_BITS) - 1;
    return listed(atom, SHIFT_ZERO - (int)(pair >> 2 * SHIFT_BITS & mask), SHIFT_ZERO - (int)(pair >> SHIFT_BITS & mask),
                  SHIFT_ZERO - (int)(pair & mask));
}

// The vector from i to its neighbour j, Å: exchanging the atoms and negating the translation negates it to the last bit.
__device__ inline double3 pair_vector(const Parameters& p, int i, int j, int x, int y, int z)
{
    double3 r = make_double3(p.positions[3 * j] - p.positions[3 * i],
                             p.positions[3 * j + 1] - p.positions[3 * i + 1],
                             p.positions[3 * j + 2] - p.positions[3 * i + 2]);
    if (x != 0 || y != 0 || z != 0) {
        double a = x, b = y, c = z;
        r.x += p.cell[0] * a + p.cell[3] * b + p.cell[6] * c;
        r.y += p.cell[1] * a + p.cell[4] * b + p.cell[7] * c;
        r.z += p.cell[2] * a + p.cell[5] * b + p.cell[8] * c;
    }
    return r;
}

// Where the row of an atom ends in the list.
__device__ inline unsigned row_end(const Parameters& p, int atom)
{
#if REPLICAS
    return p.rows[atom] + p.found[atom];
#else
    return p.rows[atom + 1];
#endif
}

// An atom's vector in an array [N][3].
__device__ inline double3 vector_of(const double* array, int atom)
{
    return make_double3(array[3 * atom], array[3 * atom + 1], array[3 * atom + 2]);
}

__device__ inline double norm2(double x, double y, double z) { return x * x + y * y + z * z; }

// Sums over a block of 1024 threads or fewer, known to all of them. Every thread must call it.
#if RESIDENT
template <int COUNT> __device__ inline void block_sums(double* values)
{
    // Only the first warps have atoms: the same sums without the others.
    constexpr int warps = (ATOMS + 31) / 32;
    BLOCK_SHARED(double, whole, COUNT * warps);
    if (threadIdx.x < 32 * warps) {
#pragma unroll 1
        for (int offset = 16; offset > 0; offset >>= 1)
#pragma unroll
            for (int k = 0; k < COUNT; k++) values[k] += __shfl_xor_sync(FULL, values[k], offset);
        if (threadIdx.x % 32 == 0)
            for (int k = 0; k < COUNT; k++) whole[k * warps + threadIdx.x / 32] = values[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        values[k] = whole[k * warps];
        for (int warp = 1; warp < warps; warp++) values[k] += whole[k * warps + warp];
    }
    __syncthreads();
}

__device__ inline double block_sum(double value)
{
    block_sums<1>(&value);
    return value;
}
#else
__device__ inline double block_sum(double value)
{
    BLOCK_SHARED(double, parts, 1024);
    parts[threadIdx.x] = value;
    __syncthreads();
    for (int width = 512; width > 0; width >>= 1) {
        if (threadIdx.x < width && threadIdx.x + width < blockDim.x) parts[threadIdx.x] += parts[threadIdx.x + width];
        __syncthreads();
    }
    double sum = parts[0];
    __syncthreads();
    return sum;
}

template <int COUNT> __device__ inline void block_sums(double* values)
{
    for (int k = 0; k < COUNT; k++) values[k] = block_sum(values[k]);
}
#endif

// Whether a multiple of the other; both are positive. Division of 64 bits is long.
__device__ inline bool is_multiple(long long number, long long of)
{
    return ((number | of) >> 32 == 0 ? (unsigned)number % (unsigned)of : number % of) == 0;
}

// Four numbers at once.
// Through the read-only path: nothing that is read like this is written by the same kernel, so that loads of the next
// pairs may overtake stores.
__device__ inline float4 load4(const float* p) { return __ldg((const float4*)p); }
// What atoms send each other. Where atoms are few, other blocks of the same kernel write it.
__device__ inline float4 load_sent(const float* p) { return FEW ? *(const float4*)p : load4(p); }
__device__ inline void store4(float* p, float4 v) { *(float4*)p = v; }
__device__ inline float4 zero4() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
__device__ inline float4 mul(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ inline float4 scale(float a, float4 b) { return make_float4(a * b.x, a * b.y, a * b.z, a * b.w); }
__device__ inline float4 add(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
__device__ inline float4 sub(float4 a, float4 b) { return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w); }
__device__ inline float4 fma4(float4 a, float4 b, float4 c)
{
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
__device__ inline float4 fma4(float a, float4 b, float4 c)
{
    return make_float4(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y), fmaf(a, b.z, c.z), fmaf(a, b.w, c.w));
}
__device__ inline float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

// σ(x) = x / (1 + e^-x) and its derivative.
__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

__device__ inline float silu_slope(float x)
{
    float s = 1.0f / (1.0f + expf(-x));
    return s * (1.0f + x * (1.0f - s));
}

static_assert(sizeof(Control) == CONTROL_BYTES && sizeof(Sample) == SAMPLE_BYTES && sizeof(Parameters) == PARAMETER_BYTES &&
                  sizeof(Replica) == REPLICA_BYTES,
              "host and device disagree on what they share");
