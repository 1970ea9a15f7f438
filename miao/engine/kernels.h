/* What a pass is made of: a row's norm, exponential and rounding, and products of few rows with a
   matrix. Vectors have eight lanes, whatever the processor's have; a sum runs along the row in each
   lane, and the lanes are added in one fixed order. */

#include <stdint.h>
#ifdef __wasm__ /* the module of a page: no library */
#include <wasm_simd128.h>
#define INFINITY __builtin_inff()
#define sqrtf __builtin_sqrtf
#define fabsf __builtin_fabsf
#define memcpy __builtin_memcpy
#else
#include <math.h>
#include <string.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#else /* one thread does it all */
#define omp_get_num_threads() 1
#define omp_get_thread_num() 0
#endif
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
/* A short loop of known length that must become straight code, or its sums would stand in memory. */
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 4")
#endif
/* Holds a value in its register here: the compiler would rather load it again and again. */
#ifdef __AVX2__
#define HOLD(vector) __asm__ volatile("" : "+x"(vector))
#else
#define HOLD(vector) (void)(vector)
#endif
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define LANES 8
#ifdef __wasm__
#define TILE 2 /* a sum takes two of its registers */
#else
#define TILE 4 /* outputs of a tile */
#endif
#define ROWS 3   /* its tokens: 12 sums and their factors fill the 16 registers of AVX2 */
#define GROUP 4  /* query heads that look at a key together */
#define AHEAD 2  /* tiles between the weights that are read and those that are asked for */
#define BLOCK 48 /* tokens whose activations stay in the cache while weights pass by */
#define STEPS 8191.0f /* activations beside int8 weights: 14 bits */

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u8 __attribute__((vector_size(32), aligned(2), may_alias));

enum { FP32, BF16, INT8 };

typedef struct {
    const void *weight;        /* [outputs, inputs] */
    const float *scale, *bias; /* [outputs] or null; scales with int8 */
    int64_t outputs, inputs;
} Matrix;

/* The inputs of a product: float32, and with int8 weights their 14-bit steps. */
typedef struct {
    float *x;       /* [t, width] */
    int16_t *steps; /* [t, width] */
    float *step;    /* [t]: the size of a row's step */
} Rows;

/* ---- single rows ---- */

INLINE v8 load(const float *x) { return *(const v8 *)x; }

INLINE float sum_of(v8 v)
{
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

/* e^x to about 2 ulp (Cody-Waite reduction, Taylor polynomial); 0 below -87. */
INLINE v8 exp8(v8 x)
{
    const i8 alive = x > -87.0f;
    const i8 high = x > 88.0f;
    x = (v8)(((i8)x & ~high) | ((i8)((v8){} + 88.0f) & high));
    const v8 magic = (v8){} + 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers */
    const v8 shifted = x * 1.44269504088896341f + magic;
    const v8 n = shifted - magic;
    const v8 r = x - n * 0.693359375f - n * -2.12194440e-4f;
    v8 p = (v8){} + 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const i8 power = ((i8)shifted - (i8)magic + 127) << 23;
    return (v8)((i8)(p * (v8)power) & alive);
}

INLINE float root_mean_square(const float *x, int64_t size, float eps)
{
    v8 squares = {};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) squares += load(x + i) * load(x + i);
    float sum = sum_of(squares);
    for (; i < size; i++) sum += x[i] * x[i];
    return 1.0f / sqrtf(sum / size + eps);
}

static void rms_norm(const float *x, const float *weight, float *y, int64_t size, float eps)
{
    const float factor = root_mean_square(x, size, eps);
    for (int64_t i = 0; i < size; i++) y[i] = x[i] * factor * weight[i];
}

/* Rounds a row to steps, so large that a lane's sum of products with int8 stays within int32. */
static void round_row(const float *x, int16_t *steps, float *step, int64_t size)
{
    float largest = 1e-12f;
    for (int64_t i = 0; i < size; i++) {
        const float magnitude = fabsf(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    const float most = (float)(2147483647.0 / 127 / ((double)size / LANES + 1));
    const float per = (most < STEPS ? most : STEPS) / largest;
    for (int64_t i = 0; i < size; i++)
        steps[i] = (int16_t)(int32_t)(x[i] * per + 12582912.0f - 12582912.0f);
    *step = 1.0f / per;
}

static void silu_times(float *gate, const float *up, int64_t size)
{
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const v8 x = load(gate + i);
        *(v8 *)(gate + i) = x / (1.0f + exp8(-x)) * load(up + i);
    }
    float rest[LANES] = {0};
    for (int64_t j = i; j < size; j++) rest[j - i] = gate[j];
    const v8 x = load(rest);
    *(v8 *)rest = x / (1.0f + exp8(-x));
    for (; i < size; i++) gate[i] = rest[i % LANES] * up[i];
}

/* ---- products ---- */

/* Eight lanes each of up to four vectors, added up. */
INLINE void sums_of(const v8 *lanes, int count, float *sums)
{
#ifdef __AVX2__
    const __m256 a = (__m256)lanes[0], b = (__m256)(count > 1 ? lanes[1] : (v8){});
    const __m256 c = (__m256)(count > 2 ? lanes[2] : (v8){});
    const __m256 d = (__m256)(count > 3 ? lanes[3] : (v8){});
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    _mm_storeu_ps(sums, four);
#else
    for (int i = 0; i < count; i++) sums[i] = sum_of(lanes[i]);
#endif
}

/* Asks for weights that are needed later. A tile reads four rows of them at once; memory gives more
   when it is read straight on, so that is how it is asked. */
INLINE void ask_for(const char *next, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(next + i);
}

/* sums[row][column] = x[row] . w[column], for up to 4 rows and 4 columns, of which one number is at
   most 3, floating. next: the weights to ask for meanwhile, as many as the tile reads, or null. */
INLINE void float_tile(int rows, int columns, const float *x, int64_t x_stride, const float *w,
                       int64_t w_stride, int64_t size, const char *next, float sums[][TILE])
{
    v8 lanes[GROUP][TILE] = {{{0}}};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        v8 a[GROUP];
        if (next) ask_for(next + TILE * sizeof(float) * i, TILE * sizeof(float) * LANES);
UNROLLED
        for (int r = 0; r < rows; r++) {
            a[r] = load(x + r * x_stride + i);
            HOLD(a[r]);
        }
UNROLLED
        for (int c = 0; c < columns; c++) {
            v8 b = load(w + c * w_stride + i);
            if (rows > 1) HOLD(b);
UNROLLED
            for (int r = 0; r < rows; r++) {
                lanes[r][c] += a[r] * b;
                HOLD(lanes[r][c]);
            }
        }
    }
UNROLLED
    for (int r = 0; r < rows; r++) sums_of(lanes[r], columns, sums[r]);
    for (; i < size; i++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                sums[r][c] += x[r * x_stride + i] * w[c * w_stride + i];
}

#ifndef __wasm__
/* The same of bf16 weights. Sixteen of them stand in eight words, number i below number i + 8, so
   that each takes one operation to become a float32; what is left of a row stands in order. */
INLINE void half_tile(int rows, int columns, const float *x, int64_t x_stride, const uint16_t *w,
                      int64_t w_stride, int64_t size, const char *next, float sums[][TILE])
{
    v8 lanes[ROWS][TILE] = {{{0}}};
    int64_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        v8 a[ROWS], b[ROWS];
        if (next) ask_for(next + TILE * sizeof *w * i, TILE * sizeof *w * 2 * LANES);
UNROLLED
        for (int r = 0; r < rows; r++) {
            a[r] = load(x + r * x_stride + i);
            b[r] = load(x + r * x_stride + i + LANES);
        }
UNROLLED
        for (int c = 0; c < columns; c++) {
            const u8 words = *(const u8 *)(w + c * w_stride + i);
            v8 low = (v8)(words << 16), high = (v8)(words & 0xffff0000u);
            if (rows > 1) {
                HOLD(low);
                HOLD(high);
            }
UNROLLED
            for (int r = 0; r < rows; r++) {
                lanes[r][c] += a[r] * low;
                HOLD(lanes[r][c]);
                lanes[r][c] += b[r] * high;
                HOLD(lanes[r][c]);
            }
        }
    }
UNROLLED
    for (int r = 0; r < rows; r++) sums_of(lanes[r], columns, sums[r]);
    for (; i < size; i++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) {
                const uint32_t bits = (uint32_t)w[c * w_stride + i] << 16;
                float b;
                memcpy(&b, &bits, sizeof b);
                sums[r][c] += x[r * x_stride + i] * b;
            }
}
#endif

/* The same of whole numbers. Each lane's sum is exact; only the lanes are added as floats. */
INLINE void integer_tile(int rows, int columns, const int16_t *x, int64_t x_stride,
                         const int8_t *w, int64_t w_stride, int64_t size, const char *next,
                         float sums[][TILE])
{
    i8 lanes[ROWS][TILE] = {{{0}}};
    int64_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        if (next) ask_for(next + TILE * i, TILE * 2 * LANES);
UNROLLED
        for (int c = 0; c < columns; c++) {
            const int8_t *weight = w + c * w_stride + i;
#ifdef __AVX2__
            __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)weight));
            HOLD(b);
#elif defined(__wasm__)
            const v128_t low = wasm_i16x8_load8x8(weight);
            const v128_t high = wasm_i16x8_load8x8(weight + LANES);
#endif
UNROLLED
            for (int r = 0; r < rows; r++) {
                const int16_t *steps = x + r * x_stride + i;
#ifdef __AVX2__
                const __m256i a = _mm256_loadu_si256((const __m256i *)steps);
                lanes[r][c] += (i8)_mm256_madd_epi16(a, b);
                HOLD(lanes[r][c]);
#elif defined(__wasm__)
                const v128_t a = wasm_i32x4_dot_i16x8(low, wasm_v128_load(steps));
                const v128_t b = wasm_i32x4_dot_i16x8(high, wasm_v128_load(steps + LANES));
                lanes[r][c] += (i8)__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
                for (int lane = 0; lane < LANES; lane++)
                    lanes[r][c][lane] += steps[2 * lane] * weight[2 * lane] +
                                         steps[2 * lane + 1] * weight[2 * lane + 1];
#endif
            }
        }
    }
UNROLLED
    for (int r = 0; r < rows; r++) {
        v8 floats[TILE];
UNROLLED
        for (int c = 0; c < columns; c++) floats[c] = __builtin_convertvector(lanes[r][c], v8);
        sums_of(floats, columns, sums[r]);
    }
    for (; i < size; i++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                sums[r][c] += (float)(x[r * x_stride + i] * w[c * w_stride + i]);
}

INLINE void tile(int kind, int rows, int columns, const Matrix *m, const Rows *in, int64_t token,
                 int64_t output, int is_first, float *y, int adds)
{
    const int64_t size = m->inputs, x_at = token * size;
    const int64_t bytes = kind == FP32 ? 4 : kind == BF16 ? 2 : 1;
    const char *w = (const char *)m->weight + output * size * bytes;
    const char *next = is_first ? w + AHEAD * TILE * size * bytes : 0;
    float sums[ROWS][TILE];
    if (kind == INT8) {
        const int8_t *whole = (const int8_t *)w;
        integer_tile(rows, columns, in->steps + x_at, size, whole, size, size, next, sums);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                sums[r][c] *= in->step[token + r] * m->scale[output + c];
#ifndef __wasm__
    } else if (kind == BF16) {
        half_tile(rows, columns, in->x + x_at, size, (const uint16_t *)w, size, size, next, sums);
#endif
    } else {
        float_tile(rows, columns, in->x + x_at, size, (const float *)w, size, size, next, sums);
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            float *place = y + (token + r) * m->outputs + output + c;
            const float value = sums[r][c] + (m->bias ? m->bias[output + c] : 0.0f);
            *place = adds ? *place + value : value;
        }
}

/* y[t, first:last] = x . w[first:last] + b, or added to what y holds. */
INLINE void product(int kind, const Matrix *m, const Rows *in, int64_t tokens, int64_t first,
                    int64_t last, float *y, int adds)
{
    for (int64_t begin = 0; begin < tokens; begin += BLOCK) {
        const int64_t end = MIN(begin + BLOCK, tokens);
        int64_t o = first;
        for (; o + TILE <= last; o += TILE) {
            int64_t t = begin;
            for (; t + 3 <= end; t += 3) tile(kind, 3, TILE, m, in, t, o, t == begin, y, adds);
            if (end - t == 2) tile(kind, 2, TILE, m, in, t, o, t == begin, y, adds);
            if (end - t == 1) tile(kind, 1, TILE, m, in, t, o, t == begin, y, adds);
        }
        for (; o < last; o++)
            for (int64_t t = begin; t < end; t++) tile(kind, 1, 1, m, in, t, o, 0, y, adds);
    }
}

/* This thread's share of a product's outputs. */
static void share(int64_t outputs, int64_t *first, int64_t *last)
{
    const int64_t tiles = (outputs + TILE - 1) / TILE;
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    *first = tiles * thread / threads * TILE;
    *last = MIN(tiles * (thread + 1) / threads * TILE, outputs);
}

static void shared_product(int kind, const Matrix *m, const Rows *in, int64_t tokens, float *y,
                           int adds)
{
    int64_t first, last;
    share(m->outputs, &first, &last);
    switch (kind) {
    case FP32: product(FP32, m, in, tokens, first, last, y, adds); break;
#ifndef __wasm__
    case BF16: product(BF16, m, in, tokens, first, last, y, adds); break;
#endif
    case INT8: product(INT8, m, in, tokens, first, last, y, adds); break;
    }
}
