// Clusters: CLUSTER blocks that run at the same time and write into each other's shared memory.
//
// In an exchange threads hand out numbers to the same place in all blocks, then wait until all that their block is to get
// are there. Four lanes, a quad, put their numbers together: each of them gives all four to CLUSTER / 4 blocks at once. A
// block gets what it waits for from all others, so nobody is more than one exchange ahead: the two barriers that count bytes
// take turns, and a place may be written again two exchanges later. Nothing but the numbers is waited for: a barrier over
// the cluster would wait for global memory too, a microsecond each time.
#pragma once
#include "common.cuh"

#ifndef EMULATED_CLUSTERS
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)

// Says that this thread has read what it will of its block's shared memory. It says nothing of what the thread has written.
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }

// Waits until all threads of the cluster have come as far as `cluster_arrive` or `open_exchange`.
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

__device__ inline unsigned shared_address(const void* at) { return (unsigned)__cvta_generic_to_shared(at); }

// Makes a block's two barriers and says so to the cluster: `cluster_wait` before anything is handed out.
__device__ inline void open_exchange(unsigned long long* barriers)
{
    if (threadIdx.x < 2) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barriers + threadIdx.x)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_arrive();
}

// Writes four numbers to the same place, a multiple of 16 bytes, in the cluster's block `rank` and counts their bytes at
// that block's barrier.
__device__ inline void send(int rank, float* at, float4 v, unsigned long long* barrier)
{
    unsigned to, counter;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(at)), "r"(rank));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counter) : "r"(shared_address(barrier)), "r"(rank));
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(counter)
                 : "memory");
}

// Another block's shared memory.
typedef unsigned Window;

__device__ inline Window window_of(int rank)
{
    DYNAMIC_SHARED(float4, memory);
    unsigned to;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(memory)), "r"(rank));
    return to;
}

// The same from there: `at` and `barrier` are bytes from where the kernel's shared memory begins.
__device__ inline void send_into(Window window, int at, float4 v, int barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(window + at),
                 "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(window + barrier)
                 : "memory");
}

// So many bytes are to come. One thread of the block.
__device__ inline void expect(unsigned long long* barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

// Waits until they are there; `parity` is 0 the first time, then 1, and so on.
__device__ inline void await(unsigned long long* barrier, int parity)
{
    unsigned done = 0;
    while (!done)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
}

// Waits until all blocks of the grid have come here: what they have written is there then. They must all run at the same time.
// The highest bit of `barrier` turns over when the last one comes; nothing else of it is left.
__device__ inline void everyone(unsigned* barrier)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1, before, now;
        asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(barrier), "r"(mine) : "memory");
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(barrier) : "memory");
        while (((before ^ now) & 0x80000000u) == 0);
    }
    __syncthreads();
}

// Writes three numbers and a tag to memory where other clusters look for them, all at once or not at all: who sees the tag sees the
// numbers. Nothing else is ordered by it. Compilers before CUDA 12.3 have no name for that; they are told to store four numbers, which
// these devices do at once too where the place is a multiple of 16 bytes.
#define WHOLE_WORDS (__CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1203)
__device__ inline void post(float4* at, float x, float y, float z, unsigned tag)
{
#if WHOLE_WORDS
    asm volatile("{ .reg .b64 low, high; .reg .b128 word; mov.b64 low, {%1, %2}; mov.b64 high, {%3, %4};"
                 "  mov.b128 word, {low, high}; st.relaxed.gpu.global.b128 [%0], word; }"
                 :: "l"(at), "f"(x), "f"(y), "f"(z), "r"(tag) : "memory");
#else
    asm volatile("st.volatile.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :: "l"(at), "r"(__float_as_uint(x)), "r"(__float_as_uint(y)), "r"(__float_as_uint(z)), "r"(tag) : "memory");
#endif
}

// What is there now; whether it has `tag` is for the caller to see, who looks again.
__device__ inline float4 look(const float4* at, unsigned tag)
{
    float4 v;
#if WHOLE_WORDS
    asm volatile("{ .reg .b64 low, high; .reg .b128 word; ld.relaxed.gpu.global.b128 word, [%4]; mov.b128 {low, high}, word;"
                 "  mov.b64 {%0, %1}, low; mov.b64 {%2, %3}, high; }"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
#else
    asm volatile("ld.volatile.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
#endif
    return v;
}

// A load of what never changes that starts here and now, however late it is used.
__device__ inline float4 load_now(const float* at)
{
    float4 v;
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at));
    return v;
}
#endif

// Rank of this block in its cluster.
__device__ inline int cluster_rank() { return blockIdx.x % CLUSTER; }

static_assert(CLUSTER % 4 == 0, "each lane of a quad sends to as many blocks as the others");

// Exchanges of a cluster, one after the other.
struct Exchange {
    unsigned long long* barriers; // [2], in shared memory
    int count;                    // done so far

    // That of the exchange that goes on.
    __device__ inline unsigned long long* now() const { return barriers + (count & 1); }
};

// Gives a number to all blocks, if `on`. Every lane of a warp must call it; the lanes of a quad are all on or all off, and
// their places are next to each other.
__device__ inline void hand_out(unsigned long long* barrier, float* at, float value, bool on)
{
    float4 all;
    all.x = __shfl_sync(FULL, value, 0, 4);
    all.y = __shfl_sync(FULL, value, 1, 4);
    all.z = __shfl_sync(FULL, value, 2, 4);
    all.w = __shfl_sync(FULL, value, 3, 4);
    if (!on) return;
#pragma unroll
    for (int first = 0; first < CLUSTER; first += 4)
        send(first + threadIdx.x % 4, at - threadIdx.x % 4, all, barrier);
}

// Waits until this block has got so many numbers. Every thread must call it: what a thread has read before, others may
// overwrite after. (The numbers of all threads say as much, but tools that look for races do not count bytes.)
__device__ inline void finish(Exchange& e, int numbers)
{
    __syncthreads();
    unsigned long long* barrier = e.now();
    if (threadIdx.x == 0) expect(barrier, numbers * (int)sizeof(float));
    await(barrier, e.count >> 1 & 1);
    e.count++;
}
