// What compilers make of structures, arrays in local memory, tables, switches, packing and what warps do together.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__constant__ int weights[8] = {1, 2, 4, 8, 16, 32, 64, 128};
__device__ u32 counter = 7;
__device__ const u8 order[4] = {3, 1, 0, 2};

struct Affine {
    float factor[3], addend[3];
};

static __device__ u16 half_bits(float value)
{
    u16 bits;
    asm("{ cvt.rn.f16.f32 %0, %1; }" : "=h"(bits) : "f"(value));
    return bits;
}

extern "C" __global__ void __launch_bounds__(128) normalise(const u8 *pixels, u16 *out, Affine affine, u32 count)
{
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    out[i] = half_bits(fmaf((float)pixels[i], affine.factor[i % 3], affine.addend[i % 3]));
    atomicAdd(&counter, order[i & 3]);
}

// An array that is indexed by what is not known when compiled, and a switch.
extern "C" __global__ void local_array(int *out, int n)
{
    int values[16];
    for (int i = 0; i < 16; i++)
        values[i] = i * n + threadIdx.x;
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += values[(i * 7) & 15];
    switch (threadIdx.x % 6) {
    case 0: sum += 1; break;
    case 1: sum ^= 0x55; break;
    case 2: sum *= 3; break;
    case 3: sum = -sum; break;
    case 4: sum += weights[sum & 7]; break;
    default: sum = __brev(sum) >> 16; break;
    }
    out[threadIdx.x] = sum;
}

// Lanes of a group add up, and the first of each writes.
extern "C" __global__ void groups(const u32 *keys, u32 *sums)
{
    u32 key = keys[threadIdx.x];
    u32 peers = __match_any_sync(0xffffffffu, key);
    u32 sum = __reduce_add_sync(peers, threadIdx.x);
    u32 first = __ffs(peers) - 1;
    u32 shared_sum = __shfl_sync(0xffffffffu, sum, first);
    if ((threadIdx.x & 31) == first)
        atomicAdd(&sums[key], shared_sum);
}

// 64-bit arithmetic, and quotients by what is not known when compiled.
extern "C" __global__ void quotients(const u64 *a, const long long *b, u64 *out)
{
    u64 x = a[threadIdx.x];
    long long y = b[threadIdx.x];
    double ratio = (double)x / (double)y;
    out[threadIdx.x] = x / (u64)(y | 1) + (u64)((long long)x % (y | 1)) + __umul64hi(x, (u64)y) + __popcll(x)
                       + (u64)__double_as_longlong(ratio) + (u64)(u32)__double2int_rn(fmin(ratio, 1000.0));
}
