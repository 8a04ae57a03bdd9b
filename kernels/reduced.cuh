// What messages and their adjoint share in reduced precision, for many atoms: see message_reduced.cu and adjoint_reduced.cu.
//
// As in message_radial.cu a warp has one atom and 16 pairs at a time, blocks walk over all rows once for each slice of channels, whose
// filter weights are then in their shared memory, and what a warp needs next comes to its shared memory while it works.
//
// What is gathered has 16 bits. An atom sends rows of 64 channels, slice by slice: x^q, x^R, x^μ, μ; of the first layer, by elements, the
// first two. Eight channels are a chunk; chunks of a row are turned by two from one atom to the next, so that four atoms' lie in other
// banks of the cache. In the adjoint an atom is sent rows of 32 channels, g_q and g_μ, times GRADIENT_SCALE.
#pragma once
#include "rows.cuh"

static_assert(!STUDENT && FEATURES % 64 == 0, "reduced precision is for a painn in slices of 64 channels");

// As many as the registers allow; the host has the same numbers.
#define MESSAGE_FIRST_THREADS 512
#define MESSAGE_THREADS 384
#define ADJOINT_FIRST_THREADS 512
#define ADJOINT_THREADS 384
#define FUNCTIONS 20
#define WIDE_SLICES (FEATURES / 64)

// Rows of a slice that an atom sends, and of the gradients that it is sent.
#define SENT_ROWS(first) ((first) ? 2 : 6)
#define GRADIENT_ROWS 4

// Where a chunk of a row stands, in chunks.
__device__ inline unsigned sent_place(bool first, unsigned sender, int slice, int row, int chunk)
{
    return ((sender * WIDE_SLICES + slice) * SENT_ROWS(first) + row) * 8 + ((chunk + 2 * sender) & 7);
}

// Copies to shared memory; the block must wait before it uses it.
__device__ inline void stage(uint4* to, const uint4* from, int count)
{
    for (int n = threadIdx.x; n < count; n += blockDim.x) to[n] = __ldg(from + n);
}
