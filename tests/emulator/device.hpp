// CUDA's language on a CPU, as far as the kernels use it: a block's threads are fibers that take turns, so barriers and
// exchanges inside a warp mean what they mean on a GPU. Compiled with the kernels into a library; driver.cpp loads it.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <utility>

#define __global__
#define __device__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __noinline__ __attribute__((noinline))
#define DYNAMIC_SHARED(type, name) type* name = (type*)emulator::own_shared()
#define BLOCK_SHARED(type, name, count) \
    static type name##_of[emulator::BLOCKS][count]; \
    type* name = name##_of[emulator::current / blockDim.x]
#define EMULATED_CLUSTERS
#define EMULATED_WARPS
#define CLUSTERED

struct float4 { float x, y, z, w; } __attribute__((aligned(16)));
struct float2 { float x, y; } __attribute__((aligned(8)));
struct int4 { int x, y, z, w; } __attribute__((aligned(16)));
struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
struct double3 { double x, y, z; };
struct uint3 { unsigned x, y, z; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double3 make_double3(double x, double y, double z) { return {x, y, z}; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline void sincospif(float x, float* sine, float* cosine) { *sine = sin(M_PI * x), *cosine = cos(M_PI * x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline void __threadfence() {}
template <class T> T atomicAdd(T* at, T x) { T old = *at; *at = old + x; return old; }
template <class T> T atomicMax(T* at, T x) { T old = *at; if (x > old) *at = x; return old; }
template <class T> T atomicMin(T* at, T x) { T old = *at; if (x < old) *at = x; return old; }

inline uint3 threadIdx, blockIdx, blockDim, gridDim;

// A graph's condition is a number in the driver's memory, its handle the address.
extern "C" inline void cudaGraphSetConditional(unsigned long long handle, unsigned value) { *(unsigned*)handle = value; }

namespace emulator {
enum Waiting { NOTHING, BLOCK, WARP, ARRIVALS, BYTES, WORD, GRID, DONE };
struct Warp {
    unsigned long long values[2][32];
    int arrived[2];
};
struct Fiber {
    void* stack_pointer;
    Waiting waiting;
    int turn;     // which of its warp's two exchanges comes next
    bool arrived; // at the cluster's barrier
    struct Bytes* barrier; // whose bytes it waits for
    unsigned parity;
    const unsigned* tag; // of a word that it waits for, and which one is to be there
    unsigned wanted;
};
// A barrier in shared memory that counts bytes, in the eight bytes that it has on a GPU.
struct Bytes {
    int missing; // still to come, negative when they came before they were expected
    unsigned short expected, parity;
};
// Fibers are numbered block by block. One cluster runs after the other, in the same place, unless its threads wait for the
// grid: then it keeps its place, and the next one takes that behind.
// Stacks do not begin at the same place in the cache.
const int THREADS = 1024, BLOCKS = 128, FIBERS = BLOCKS * 512, STACK = 64 * 1024 + 320, SHARED = 232 * 1024;
inline Fiber fibers[FIBERS];
inline Warp warps[FIBERS / 32];
// What a thread has asked for and not waited for, group by group; `count[2]` is of the group that is not complete.
struct Copies {
    struct { void* to; const void* from; } all[3][16];
    int count[3], groups;
};
inline Copies copies[FIBERS];
inline float operands[FIBERS / 32][2][32][12]; // of matrix products, given with an exchange's values
inline void* scheduler;
inline int current;
inline void (*body)(void**);
inline void** arguments;
// Taken by the first launch, given back with the library.
inline struct Stacks {
    char* memory;
    ~Stacks() { if (memory) munmap(memory, (size_t)FIBERS * STACK); }
    explicit operator bool() const { return memory; }
} stacks;
inline __attribute__((aligned(16))) char dynamic_shared[BLOCKS * SHARED];

inline char* own_shared() { return dynamic_shared + current / blockDim.x * SHARED; }

// Keeps the registers that a function must keep, and goes on where the other stack left off.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.weak emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

inline int lanes; // fibers up to the end of this cluster
inline unsigned first_block; // of the first place
inline bool rising;
inline bool progress; // some thread has gone on

// Whether a fiber waits for others.
inline bool held(int t)
{
    const Fiber& fiber = fibers[t];
    return fiber.waiting == DONE || fiber.waiting == BLOCK || fiber.waiting == GRID || (fiber.waiting == ARRIVALS && fiber.arrived)
        || (fiber.waiting == WARP && warps[t / 32].arrived[fiber.turn] < 32)
        || (fiber.waiting == BYTES && fiber.barrier->parity == fiber.parity)
        || (fiber.waiting == WORD && *fiber.tag != fiber.wanted);
}

// Goes on with a fiber, from where `from` keeps the stack that is left.
inline void go_on(int t, void** from)
{
    current = t;
    threadIdx.x = t % blockDim.x;
    blockIdx.x = first_block + t / blockDim.x;
    fibers[t].waiting = NOTHING;
    emulator_switch(from, fibers[t].stack_pointer);
}

// Leaves this fiber: the next lane of its warp goes on, if it can.
inline void yield()
{
    int from = current, next = rising ? from + 1 : from - 1;
    if (next >= 0 && next < lanes && next / 32 == from / 32 && !held(next)) go_on(next, &fibers[from].stack_pointer);
    else emulator_switch(&fibers[from].stack_pointer, scheduler);
}

__attribute__((noinline)) inline void thread_main()
{
    body(arguments);
    fibers[current].waiting = DONE;
    yield();
    abort();
}

inline void stop(const char* why)
{
    fprintf(stderr, "emulator: %s, block %u, thread %d\n", why, blockIdx.x, current);
    abort();
}

// Threads of a block that have come as far as its barrier go on when all that are left have.
inline bool open_barrier(int block, int threads)
{
    int waiting = 0, left = 0;
    for (int t = block * threads; t < (block + 1) * threads; t++) {
        waiting += fibers[t].waiting == BLOCK;
        left += fibers[t].waiting != DONE;
    }
    if (waiting == 0 || waiting < left) return false;
    for (int t = block * threads; t < (block + 1) * threads; t++)
        if (fibers[t].waiting == BLOCK) fibers[t].waiting = NOTHING;
    return true;
}

// Makes fibers of the threads of one cluster, from the fiber `base` on.
inline void start_cluster(int base, int threads)
{
    size_t bytes = (size_t)FIBERS * STACK;
    if (!stacks) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) stop("no memory for stacks");
        stacks.memory = (char*)memory;
    }
    memset(warps + base / 32, 0, sizeof(Warp) * ((threads + 31) / 32));
    for (int t = base; t < base + threads; t++) {
        // As if called: the return address is thread_main, and the stack is aligned as a callee expects it.
        void** top = (void**)(stacks.memory + (size_t)(t + 1) * STACK) - 3;
        *--top = (void*)thread_main;
        for (int k = 0; k < 6; k++) *--top = nullptr;
        fibers[t] = {top, NOTHING, 0, false, nullptr, 0, nullptr, 0};
        copies[t].groups = copies[t].count[2] = 0;
    }
}

// Runs a cluster until its threads are done, or until they all wait for the grid or some for words of other clusters: then it says
// so.
inline bool run_cluster(int base, int blocks, int threads)
{
    int end = base + blocks * threads;
    lanes = end;
    bool ran = false;
    // Every other cluster in falling order: what depends on the order of threads shows as another result.
    rising = (first_block * threads + base) / (blocks * threads) % 2 == 0;
    while (true) {
        bool moved = false;
        // A warp at a time, until all its lanes wait for others.
        for (int n = base; n < end; n += 32) {
            int from = rising ? n : (end - 1 - (n - base)) / 32 * 32, to = from + 32 < end ? from + 32 : end;
            for (bool again = true; again;) {
                again = false;
                for (int k = 0; k < to - from; k++) {
                    int t = rising ? from + k : to - 1 - k;
                    if (held(t)) continue;
                    go_on(t, &scheduler);
                    again = true;
                }
                moved |= again;
            }
        }
        for (int block = base / threads; block < end / threads; block++) moved |= open_barrier(block, threads);
        ran |= moved;
        if (moved) continue;
        progress |= ran;
        bool done = true, arrived = true, waiting = true, word = false;
        for (int t = base; t < end; t++) {
            done &= fibers[t].waiting == DONE;
            waiting &= fibers[t].waiting == GRID;
            word |= fibers[t].waiting == WORD;
            arrived &= fibers[t].waiting == DONE || fibers[t].arrived;
        }
        if (done || waiting) return waiting;
        if (!arrived && !word) stop("threads wait for each other at different places");
        if (!arrived) return true;
        for (int t = base; t < end; t++) fibers[t].arrived = false;
    }
}

// Runs all clusters of a row of the grid.
inline void run_row(int blocks, int threads)
{
    int all = blocks * threads, waiting = 0;
    for (unsigned x = 0; x < gridDim.x; x += blocks) {
        if ((waiting + 1) * all > FIBERS) stop("too many blocks wait for each other");
        first_block = x - waiting * blocks;
        start_cluster(waiting * all, all);
        waiting += run_cluster(waiting * all, blocks, threads);
    }
    for (bool falling = true; waiting > 0; falling = !falling) {
        if (waiting * blocks != gridDim.x) stop("not all blocks wait for each other");
        for (int t = 0; t < waiting * all; t++)
            if (fibers[t].waiting == GRID) fibers[t].waiting = NOTHING;
        bool still = false;
        progress = false;
        for (int n = 0; n < waiting; n++) still |= run_cluster((falling ? waiting - 1 - n : n) * all, blocks, threads);
        if (!still) return;
        if (!progress) stop("clusters wait for words that nobody writes");
    }
}

// All lanes give a value and wait until all have: 8 bytes of lane `from`, or all of them.
inline const unsigned long long* exchange(unsigned long long value)
{
    Fiber& fiber = fibers[current];
    Warp& warp = warps[current / 32];
    int turn = fiber.turn;
    warp.values[turn][current % 32] = value;
    if (++warp.arrived[turn] == 32) {
        // Everybody has left the exchange before this one.
        warp.arrived[1 - turn] = 0;
    } else {
        fiber.waiting = WARP;
        yield();
    }
    fiber.turn = 1 - turn;
    return warp.values[turn];
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** at, std::index_sequence<I...>)
{
    kernel(*(std::remove_reference_t<A>*)at[I]...);
}
template <class... A> void call(void (*kernel)(A...), void** at) { call(kernel, at, std::index_sequence_for<A...>{}); }
template <class... A> int sizes(void (*)(A...), size_t* out)
{
    size_t all[] = {sizeof(A)...};
    for (size_t n = 0; n < sizeof...(A); n++) out[n] = all[n];
    return sizeof...(A);
}

inline void launch(void (*kernel)(void**), unsigned blocks, const unsigned* grid, unsigned threads, unsigned shared, void** at)
{
    // Shared memory is the library's: one launch of it at a time.
    static std::mutex one;
    std::lock_guard<std::mutex> guard(one);
    if (threads > THREADS || shared > SHARED || blocks > 16) stop("a launch is too large");
    if (grid[0] % blocks != 0 || (blocks > 1 && threads % 32 != 0)) stop("a launch is not made of whole clusters");
    body = kernel;
    arguments = at;
    gridDim = {grid[0], grid[1], 1};
    blockDim = {threads, 1, 1};
    for (unsigned y = 0; y < grid[1]; y++) {
        blockIdx = {0, y, 0};
        run_row(blocks, threads);
    }
}
} // namespace emulator

// The read-only path knows no shared memory.
template <class T> T __ldg(const T* at)
{
    const char* address = (const char*)at;
    if (address >= emulator::dynamic_shared && address < emulator::dynamic_shared + sizeof emulator::dynamic_shared)
        emulator::stop("__ldg reads shared memory");
    return *at;
}

inline void __syncthreads()
{
    emulator::fibers[emulator::current].waiting = emulator::BLOCK;
    emulator::yield();
}

// Clusters take turns here, and this thread goes on when all have come.
inline void everyone(unsigned*)
{
    emulator::fibers[emulator::current].waiting = emulator::GRID;
    emulator::yield();
}

inline void cluster_arrive()
{
    bool& arrived = emulator::fibers[emulator::current].arrived;
    if (arrived) emulator::stop("a thread arrives twice at the cluster's barrier");
    arrived = true;
}

inline void cluster_wait()
{
    if (!emulator::fibers[emulator::current].arrived) return;
    emulator::fibers[emulator::current].waiting = emulator::ARRIVALS;
    emulator::yield();
}

inline void open_exchange(unsigned long long* barriers)
{
    if (threadIdx.x < 2) barriers[threadIdx.x] = 0;
    cluster_arrive();
}

// Where the same place is in another block of the cluster.
template <class T> T* place_in(int rank, T* at)
{
    size_t offset = (char*)at - emulator::own_shared();
    if (offset > emulator::SHARED - sizeof *at) emulator::stop("a write to another block's shared memory is not to shared memory");
    int block = emulator::current / blockDim.x / CLUSTER * CLUSTER + rank;
    return (T*)(emulator::dynamic_shared + block * emulator::SHARED + offset);
}

namespace emulator {
inline void turn_over(Bytes* barrier)
{
    if (!barrier->expected || barrier->missing != 0) return;
    barrier->expected = 0;
    barrier->parity ^= 1;
}
} // namespace emulator

inline void send(int rank, float* at, float4 value, unsigned long long* barrier)
{
    float4* to = place_in(rank, (float4*)at);
    if ((size_t)to % sizeof value != 0) emulator::stop("four numbers are sent to a place that is no multiple of 16 bytes");
    *to = value;
    emulator::Bytes* bytes = (emulator::Bytes*)place_in(rank, barrier);
    bytes->missing -= sizeof value;
    emulator::turn_over(bytes);
}

typedef int Window;
inline Window window_of(int rank) { return rank; }
inline void send_into(Window rank, int at, float4 value, int barrier)
{
    send(rank, (float*)(emulator::own_shared() + at), value, (unsigned long long*)(emulator::own_shared() + barrier));
}

inline void expect(unsigned long long* barrier, int count)
{
    emulator::Bytes* bytes = (emulator::Bytes*)barrier;
    if (bytes->expected) emulator::stop("a barrier expects bytes twice");
    bytes->expected = 1;
    bytes->missing += count;
    emulator::turn_over(bytes);
}

inline void await(unsigned long long* barrier, int parity)
{
    emulator::Fiber& fiber = emulator::fibers[emulator::current];
    fiber.barrier = (emulator::Bytes*)barrier;
    fiber.parity = parity;
    if (fiber.barrier->parity != parity) return;
    fiber.waiting = emulator::BYTES;
    emulator::yield();
}

// Words are there at once. Who looks for one that is not waits until it is.
inline void post(float4* at, float x, float y, float z, unsigned tag)
{
    *at = {x, y, z, 0.0f};
    memcpy(&at->w, &tag, sizeof tag);
}

inline float4 look(const float4* at, unsigned tag)
{
    emulator::Fiber& fiber = emulator::fibers[emulator::current];
    fiber.tag = (const unsigned*)&at->w;
    fiber.wanted = tag;
    if (*fiber.tag != tag) {
        fiber.waiting = emulator::WORD;
        emulator::yield();
    }
    return *at;
}

inline int here(int x) { return x; }

inline float4 load_now(const float* at) { return *(const float4*)at; }

template <class T> T __shfl_xor_sync(unsigned, T value, int mask)
{
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator::exchange(bits)[(emulator::current % 32) ^ mask];
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Groups of `width` lanes exchange among themselves.
template <class T> T __shfl_sync(unsigned, T value, int from, int width)
{
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator::exchange(bits)[emulator::current % 32 / width * width + from];
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Products of small matrices by a warp, see mma.cuh: 16 x 8 results from eight inputs.
inline void add_product(float4& sum, float4 left, float k, float other)
{
    float(*all)[12] = emulator::operands[emulator::current / 32][emulator::fibers[emulator::current].turn];
    int lane = emulator::current % 32, g = lane / 4, column = lane % 4 * 2;
    float given[6] = {left.x, left.y, left.z, left.w, k, other};
    memcpy(all[lane], given, sizeof given);
    emulator::exchange(0);
    float4 part = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int c = 0; c < 4; c++) {
        const float *a = all[4 * g + c], *b = all[4 * column + c] + 4, *next = all[4 * (column + 1) + c] + 4;
        part.x += a[0] * b[0] + a[2] * b[1];
        part.y += a[0] * next[0] + a[2] * next[1];
        part.z += a[1] * b[0] + a[3] * b[1];
        part.w += a[1] * next[0] + a[3] * next[1];
    }
    sum = {sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w};
}

inline void add_product(float4& sum, float4 high, float4 low, float k, float other)
{
    add_product(sum, {high.x + low.x, high.y + low.y, high.z + low.z, high.w + low.w}, k, other);
}

inline float high_part(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000u) & 0xffffe000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned pack_halves(float lower, float upper)
{
    _Float16 both[2] = {(_Float16)lower, (_Float16)upper};
    unsigned bits;
    memcpy(&bits, both, sizeof bits);
    return bits;
}

inline float half(unsigned both, int which)
{
    _Float16 halves[2];
    memcpy(halves, &both, sizeof halves);
    return halves[which];
}

inline float lower_half(unsigned both) { return half(both, 0); }
inline float upper_half(unsigned both) { return half(both, 1); }
inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }

inline float reciprocal(float x) { return 1.0f / x; }
inline float reciprocal_root(float x) { return 1.0f / sqrtf(x); }
inline float two_to(float x) { return exp2f(x); }

inline void add_half_product(float4& sum, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
    float(*all)[12] = emulator::operands[emulator::current / 32][emulator::fibers[emulator::current].turn];
    int lane = emulator::current % 32, g = lane / 4, column = lane % 4 * 2;
    unsigned given[6] = {a0, a1, a2, a3, b0, b1};
    // As numbers once, by who gives them: others read them sixteen times.
    for (int k = 0; k < 12; k++) all[lane][k] = half(given[k / 2], k % 2);
    emulator::exchange(0);
    float results[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int n = 0; n < 4; n++)
        for (int c = 0; c < 4; c++) {
            const float *left = all[4 * g + c] + n / 2 * 2, *right = all[4 * (column + n % 2) + c] + 8;
            for (int k = 0; k < 4; k++) results[n] += left[k / 2 * 4 + k % 2] * right[k];
        }
    sum = {results[0], results[1], results[2], results[3]};
}

inline unsigned multiply_halves(unsigned a, unsigned b) { return pack_halves(half(a, 0) * half(b, 0), half(a, 1) * half(b, 1)); }
inline unsigned lower_halves(unsigned a, unsigned b) { return (a & 0xffff) | b << 16; }
inline unsigned upper_halves(unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000); }

inline void add_small_half_product(float4& sum, unsigned a0, unsigned a1, unsigned b) { add_half_product(sum, a0, a1, 0, 0, b, 0); }

inline float4 half_product(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    add_half_product(sum, a0, a1, a2, a3, b0, b1);
    return sum;
}

inline void __syncwarp() { emulator::exchange(0); }

// Sixteen bytes that come as late as they may.
inline void ask(void* to, const void* from, bool on)
{
    emulator::Copies& own = emulator::copies[emulator::current];
    if (own.count[2] == 16) emulator::stop("a thread asks for more than the emulator remembers");
    own.all[2][own.count[2]++] = {to, on ? from : nullptr};
}

inline void asked()
{
    emulator::Copies& own = emulator::copies[emulator::current];
    if (own.groups == 2) emulator::stop("a third group is asked for before the first was waited for");
    memcpy(own.all[own.groups], own.all[2], sizeof own.all[2]);
    own.count[own.groups++] = own.count[2];
    own.count[2] = 0;
}

namespace emulator {
inline void wait_for_copies(int but)
{
    Copies& own = copies[current];
    for (; own.groups > but; own.groups--) {
        for (int k = 0; k < own.count[0]; k++) {
            auto [to, from] = own.all[0][k];
            if (from) memcpy(to, from, 16);
            else memset(to, 0, 16);
        }
        memcpy(own.all[0], own.all[1], sizeof own.all[1]);
        own.count[0] = own.count[1];
    }
}
} // namespace emulator

inline void arrived() { emulator::wait_for_copies(1); }
inline void all_arrived() { emulator::wait_for_copies(0); }

inline unsigned __ballot_sync(unsigned, bool value)
{
    const unsigned long long* all = emulator::exchange(value);
    unsigned result = 0;
    for (int lane = 0; lane < 32; lane++) result |= (unsigned)all[lane] << lane;
    return result;
}

inline unsigned __reduce_max_sync(unsigned, unsigned value)
{
    const unsigned long long* all = emulator::exchange(value);
    unsigned most = 0;
    for (int lane = 0; lane < 32; lane++) most = all[lane] > most ? (unsigned)all[lane] : most;
    return most;
}

// What driver.cpp calls for a kernel whose clusters have so many blocks.
#define EMULATED(name, blocks) \
    extern "C" void emulator_launch_##name(const unsigned* grid, unsigned threads, unsigned shared, void** arguments) \
    { \
        emulator::launch([](void** at) { emulator::call(name, at); }, blocks, grid, threads, shared, arguments); \
    } \
    extern "C" int emulator_sizes_##name(size_t* out) { return emulator::sizes(name, out); }
