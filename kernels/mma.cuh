// Products of small matrices on the tensor cores, as exact as float32.
//
// Tensor cores take TF32, 11 bits of a number. Each factor is split into hi + lo, and hi·hi + hi·lo + lo·hi is summed; lo·lo
// is less than float32's rounding. Their sums are truncated, so that of each eight inputs starts from zero and is added with
// rounding. A warp makes 16 x 8 results; with g = lane / 4 and c = lane % 4 a lane gives
//   left   rows g and g + 8 of the inputs k and k': (g, k), (g + 8, k), (g, k'), (g + 8, k')
//   right  column g of the same inputs: (k, g), (k', g)
// and has rows g, g + 8 of columns 2 c, 2 c + 1: (g, 2c), (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1). Which inputs a lane calls
// k and k' is free, as long as left and right agree.
#pragma once
#include "common.cuh"

#ifndef EMULATED_WARPS
struct Split {
    unsigned hi, lo;
};

// Rounds to 11 bits by hand: the instruction for it is several. The rest has no more than 12 bits, of which the tensor cores
// take the first 11. What is no number, or infinite, has a rest that is no number.
__device__ inline Split split(float x)
{
    unsigned hi = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
    return {hi, __float_as_uint(x - __uint_as_float(hi))};
}

__device__ inline void mma(float4& sum, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum.x), "+f"(sum.y), "+f"(sum.z), "+f"(sum.w) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// sum += left · right for eight inputs.
__device__ inline void add_product(float4& sum, float4 left, float k, float other)
{
    Split a0 = split(left.x), a1 = split(left.y), a2 = split(left.z), a3 = split(left.w), b0 = split(k), b1 = split(other);
    float4 part = zero4();
    mma(part, a0.lo, a1.lo, a2.lo, a3.lo, b0.hi, b1.hi);
    mma(part, a0.hi, a1.hi, a2.hi, a3.hi, b0.lo, b1.lo);
    mma(part, a0.hi, a1.hi, a2.hi, a3.hi, b0.hi, b1.hi);
    sum = add(sum, part);
}

// The same with a left factor that has been split by `high_part`.
__device__ inline void add_product(float4& sum, float4 high, float4 low, float k, float other)
{
    Split b0 = split(k), b1 = split(other);
    unsigned h0 = __float_as_uint(high.x), h1 = __float_as_uint(high.y), h2 = __float_as_uint(high.z), h3 = __float_as_uint(high.w);
    float4 part = zero4();
    mma(part, __float_as_uint(low.x), __float_as_uint(low.y), __float_as_uint(low.z), __float_as_uint(low.w), b0.hi, b1.hi);
    mma(part, h0, h1, h2, h3, b0.lo, b1.lo);
    mma(part, h0, h1, h2, h3, b0.hi, b1.hi);
    sum = add(sum, part);
}

__device__ inline float high_part(float x) { return __uint_as_float(split(x).hi); }

// Factors of 16 bits, two in a register.
__device__ inline unsigned pack_halves(float lower, float upper)
{
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(upper), "f"(lower));
    return both;
}

__device__ inline float lower_half(unsigned both)
{
    float x;
    asm("{ .reg .b16 lower, upper; mov.b32 {lower, upper}, %1; cvt.f32.f16 %0, lower; }" : "=f"(x) : "r"(both));
    return x;
}

__device__ inline float upper_half(unsigned both)
{
    float x;
    asm("{ .reg .b16 lower, upper; mov.b32 {lower, upper}, %1; cvt.f32.f16 %0, upper; }" : "=f"(x) : "r"(both));
    return x;
}

// sum += left · right for sixteen inputs: four of them a lane's, two in each register. left: rows g and g + 8 of the first two, then
// of the others.
__device__ inline void add_half_product(float4& sum, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum.x), "+f"(sum.y), "+f"(sum.z), "+f"(sum.w) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same for eight inputs, two of them a lane's.
__device__ inline void add_small_half_product(float4& sum, unsigned a0, unsigned a1, unsigned b)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sum.x), "+f"(sum.y), "+f"(sum.z), "+f"(sum.w) : "r"(a0), "r"(a1), "r"(b));
}

// Two products of 16 bits, and two lower or upper halves in one register.
__device__ inline unsigned multiply_halves(unsigned a, unsigned b)
{
    unsigned both;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(both) : "r"(a), "r"(b));
    return both;
}

__device__ inline unsigned lower_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x5410); }
__device__ inline unsigned upper_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x7632); }

// left · right alone: the sum begins with it.
__device__ inline float4 half_product(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
    float4 sum;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
        : "=f"(sum.x), "=f"(sum.y), "=f"(sum.z), "=f"(sum.w)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
    return sum;
}

// 2^x, to two units in the last place.
__device__ inline float two_to(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x and 1 / √x, to two units in the last place.
__device__ inline float reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline float reciprocal_root(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Sixteen bytes from memory to shared memory, or zeros if not `on`, while the thread goes on. `asked` ends a group of such
// requests; `arrived` waits for what this thread asked for in all groups but the last, `all_arrived` for that too.
__device__ inline void ask(void* to, const void* from, bool on)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(on ? 16 : 0));
}

__device__ inline void asked() { asm volatile("cp.async.commit_group;"); }
__device__ inline void arrived() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
__device__ inline void all_arrived() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
#endif
