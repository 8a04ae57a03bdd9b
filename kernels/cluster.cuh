// Clusters: CLUSTER blocks that run at the same time, wait for each other and write into each other's shared memory.
#pragma once
#include "common.cuh"

#ifndef EMULATED_CLUSTERS
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)

// All threads of the cluster arrive, then wait for each other. What was written before one arrives, to shared memory of any
// block and to global memory, is there for all that have waited.
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// Writes a number to the same place in the shared memory of the cluster's block `rank`.
__device__ inline void write_to(int rank, float* at, float value)
{
    unsigned own = (unsigned)__cvta_generic_to_shared(at), theirs;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(own), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(theirs), "f"(value) : "memory");
}

// A load of what never changes that starts here and now, however late it is used.
__device__ inline float4 load_now(const float* at)
{
    float4 v;
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at));
    return v;
}
#endif

__device__ inline void cluster_barrier()
{
    cluster_arrive();
    cluster_wait();
}

// Rank of this block in its cluster.
__device__ inline int cluster_rank() { return blockIdx.x % CLUSTER; }

// Gives a number to all blocks.
__device__ inline void hand_out(float* at, float value)
{
#pragma unroll
    for (int rank = 0; rank < CLUSTER; rank++) write_to(rank, at, value);
}
