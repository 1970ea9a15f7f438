/* A decoder's pass over a cache: tokens in, logits out, all blocks in one call.

   The same arithmetic as `PackedDecoder`, its plain twin, without a dispatcher between two
   operations: a small model's token takes less time than PyTorch needs to launch it. Every number
   is summed in an order that depends on nothing but its own row, so that a sequence has the same
   logits, to the bit, alone or in company, read whole or in pieces.

   Shapes: t tokens of the pass, d hidden size, h heads, k key/value heads, e head size. Threads
   share the outputs of a product, and the heads of attention; barriers stand between the parts. */

#include "kernels.h"

#define FEW 4 /* tokens of which every thread makes its own copy of a product's inputs */

typedef struct {
    const float *input_norm, *post_norm, *q_norm, *k_norm; /* [d], [d], [e] or null */
    Matrix q, k, v, o, gate, up, down;
} Layer;

typedef struct {
    int64_t kind, hidden, layers, heads, key_heads, head_dim, inner, vocab;
    float eps;
    const float *norm, *cos, *sin; /* [d], [positions, e/2] */
    Matrix embedding, head;        /* the embedding is int8, with scales, or float32 */
    const Layer *layer;
} Model;

typedef struct {
    float *keys, *values;  /* [layers, slots, k, e] */
    int64_t slots, length; /* length: positions of a row */
} Cache;

#ifdef __wasm__ /* the page's `wasm.js` writes these */
_Static_assert(sizeof(Model) == 152 && sizeof(Layer) == 240 && sizeof(Cache) == 24, "layout");
#endif

/* ---- attention ---- */

/* Normalises (where there is a weight) and rotates one head. */
static void turn(float *x, const float *weight, const float *cos, const float *sin, int64_t size,
                 float eps)
{
    const int64_t half = size / 2;
    if (weight) rms_norm(x, weight, x, size, eps);
    for (int64_t i = 0; i < half; i++) {
        const float left = x[i], right = x[i + half];
        x[i] = left * cos[i] - right * sin[i];
        x[i + half] = right * cos[i] + left * sin[i];
    }
}

/* scores[g, s] = e^(q.k/sqrt(e) - largest), and their sum, for the queries of one key head. */
INLINE void weigh(int group, const float *query, const float *keys, int64_t stride, int64_t seen,
                  int64_t size, float *scores, int64_t width, float *total)
{
    float sums[GROUP][TILE];
    const float scale = 1.0f / sqrtf((float)size);
    const int columns = group < GROUP ? TILE : 2; /* as many sums as there are registers */
    int64_t s = 0;
    for (; s + columns <= seen; s += columns) {
        float_tile(group, columns, query, size, keys + s * stride, stride, size, 0, sums);
        for (int g = 0; g < group; g++)
            for (int c = 0; c < columns; c++) scores[g * width + s + c] = sums[g][c] * scale;
    }
    for (; s < seen; s++) {
        float_tile(group, 1, query, size, keys + s * stride, stride, size, 0, sums);
        for (int g = 0; g < group; g++) scores[g * width + s] = sums[g][0] * scale;
    }
    for (int g = 0; g < group; g++) {
        float *row = scores + g * width, largest = row[0];
        for (s = 1; s < seen; s++) largest = row[s] > largest ? row[s] : largest;
        for (s = seen; s < seen + LANES; s++) row[s] = -INFINITY;
        v8 sum = {};
        for (s = 0; s < seen; s += LANES) {
            const v8 weight = exp8(load(row + s) - largest);
            *(v8 *)(row + s) = weight;
            sum += weight;
        }
        total[g] = sum_of(sum);
    }
}

/* out[g] = sum over s of scores[g, s] * values[s] / total[g]. */
INLINE void gather(int group, const float *scores, int64_t width, const float *values,
                   int64_t stride, int64_t seen, int64_t size, const float *total, float *out)
{
    int64_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        v8 sum[GROUP][2] = {{{0}}};
        for (int64_t s = 0; s < seen; s++) {
            const v8 a = load(values + s * stride + i), b = load(values + s * stride + i + LANES);
UNROLLED
            for (int g = 0; g < group; g++) {
                sum[g][0] += a * scores[g * width + s];
                sum[g][1] += b * scores[g * width + s];
            }
        }
        for (int g = 0; g < group; g++) {
            *(v8 *)(out + g * size + i) = sum[g][0] / total[g];
            *(v8 *)(out + g * size + i + LANES) = sum[g][1] / total[g];
        }
    }
    for (; i < size; i++)
        for (int g = 0; g < group; g++) {
            float sum = 0;
            for (int64_t s = 0; s < seen; s++)
                sum += scores[g * width + s] * values[s * stride + i];
            out[g * size + i] = sum / total[g];
        }
}

/* The result of one key head's queries [g, e] takes their place. */
INLINE void attend(int group, float *query, const float *keys, const float *values,
                   int64_t stride, int64_t seen, int64_t size, float *scores, int64_t width)
{
    float total[GROUP];
    weigh(group, query, keys, stride, seen, size, scores, width, total);
    gather(group, scores, width, values, stride, seen, size, total, query);
}

/* ---- the pass ---- */

typedef struct {
    float *stream;      /* [t, d] */
    Rows in;            /* what the next product reads: this thread's own, or everybody's */
    float *one, *other; /* results that are read again: query, or gate; key and value, or up */
    float *scores;      /* this thread's */
    int64_t width;      /* of a row of scores */
    int is_private, is_apart;
} Work;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Lays the buffers of a thread out in `memory`; returns how many floats all threads take. */
static int64_t lay_out(const Model *m, int64_t tokens, int64_t length, int64_t threads,
                       int64_t thread, float *memory, Work *work)
{
    const int64_t attended = m->heads * m->head_dim, stored = m->key_heads * m->head_dim;
    const int64_t widest = larger(larger(m->hidden, attended), m->inner);
    float *next = memory;
    work->is_private = tokens <= FEW;
    const int64_t copies = work->is_private ? threads : 1;
    const int64_t own = work->is_private ? thread * tokens : 0;
    work->width = length + 2 * LANES;
    work->stream = next, next += tokens * m->hidden;
    work->in.x = next + own * widest, next += copies * tokens * widest;
    work->in.steps = (int16_t *)next + own * widest, next += (copies * tokens * widest + 1) / 2;
    work->in.step = next + own, next += copies * tokens;
    work->one = next, next += tokens * widest;
    work->other = next, next += tokens * larger(m->inner, 2 * stored);
    work->scores = next + thread * GROUP * work->width, next += threads * GROUP * work->width;
    return next - memory;
}

int64_t miao_work_size(const Model *model, int64_t tokens, int64_t length, int64_t threads)
{
    Work work;
    return lay_out(model, tokens, length, threads, 0, (float *)0, &work);
}

/* The inputs of a product: rows behind a norm, or as they are. Of few rows every thread makes its
   own, which takes less time than to wait for the others. */
static Rows prepare(const Model *m, const Work *w, float *source, const float *norm,
                    int64_t tokens, int64_t size)
{
    const int64_t first = w->is_private ? 0 : omp_get_thread_num();
    const int64_t step = w->is_private ? 1 : omp_get_num_threads();
    const Rows in = {norm ? w->in.x : source, w->in.steps, w->in.step};
    if (!norm && m->kind != INT8) return in;
    for (int64_t t = first; t < tokens; t += step) {
        float *x = in.x + t * size;
        if (norm) rms_norm(source + t * size, norm, x, size, m->eps);
        if (m->kind == INT8) round_row(x, in.steps + t * size, in.step + t, size);
    }
    if (!w->is_private) {
#pragma omp barrier
    }
    return in;
}

/* One key head of one token: it and its queries are turned, key and value go into the cache. */
static void turn_heads(const Model *m, const Cache *cache, int64_t number, const Work *w,
                       int64_t tokens, int64_t t, int64_t key, int64_t row, int64_t position)
{
    const Layer *layer = m->layer + number;
    const int64_t size = m->head_dim, stored = m->key_heads * size, group = m->heads / m->key_heads;
    const int64_t slot = number * cache->slots + row * cache->length + position;
    const float *cos = m->cos + position * (size / 2), *sin = m->sin + position * (size / 2);
    float *query = w->one + t * m->heads * size + key * group * size;
    float *new_key = w->other + t * stored + key * size;
    const float *new_value = new_key + tokens * stored;
    for (int64_t g = 0; g < group; g++)
        turn(query + g * size, layer->q_norm, cos, sin, size, m->eps);
    turn(new_key, layer->k_norm, cos, sin, size, m->eps);
    memcpy(cache->keys + slot * stored + key * size, new_key, size * sizeof(float));
    memcpy(cache->values + slot * stored + key * size, new_value, size * sizeof(float));
}

/* Attention of the queries of one key head of one token; the result takes their place. */
static void look_back(const Model *m, const Cache *cache, int64_t number, const Work *w, int64_t t,
                      int64_t key, int64_t row, int64_t position)
{
    const int64_t size = m->head_dim, stored = m->key_heads * size, group = m->heads / m->key_heads;
    const int64_t begin = (number * cache->slots + row * cache->length) * stored + key * size;
    const float *k = cache->keys + begin, *v = cache->values + begin;
    for (int64_t g = 0; g < group; g += GROUP) {
        float *query = w->one + t * m->heads * size + (key * group + g) * size;
        switch (MIN(GROUP, group - g)) {
        case 1: attend(1, query, k, v, stored, position + 1, size, w->scores, w->width); break;
        case 2: attend(2, query, k, v, stored, position + 1, size, w->scores, w->width); break;
        case 3: attend(3, query, k, v, stored, position + 1, size, w->scores, w->width); break;
        case 4: attend(4, query, k, v, stored, position + 1, size, w->scores, w->width); break;
        }
    }
}

static void attention(const Model *m, const Cache *cache, int64_t number, const Work *w,
                      int64_t tokens, const int64_t *rows, const int64_t *positions)
{
    const Layer *layer = m->layer + number;
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t heads = m->key_heads, attended = m->heads * m->head_dim;
    Rows in = prepare(m, w, w->stream, layer->input_norm, tokens, m->hidden);
    shared_product(m->kind, &layer->q, &in, tokens, w->one, 0);
    shared_product(m->kind, &layer->k, &in, tokens, w->other, 0);
    shared_product(m->kind, &layer->v, &in, tokens, w->other + tokens * heads * m->head_dim, 0);
#pragma omp barrier
    for (int64_t i = thread; i < tokens * heads; i += threads) {
        const int64_t t = i / heads, key = i % heads;
        turn_heads(m, cache, number, w, tokens, t, key, rows[t], positions[t]);
        if (w->is_apart) look_back(m, cache, number, w, t, key, rows[t], positions[t]);
    }
#pragma omp barrier
    if (!w->is_apart) { /* tokens of one row see each other */
        for (int64_t i = thread; i < tokens * heads; i += threads) {
            const int64_t t = i / heads;
            look_back(m, cache, number, w, t, i % heads, rows[t], positions[t]);
        }
#pragma omp barrier
    }
    in = prepare(m, w, w->one, 0, tokens, attended);
    shared_product(m->kind, &layer->o, &in, tokens, w->stream, 1);
#pragma omp barrier
}

static void feed_forward(const Model *m, const Layer *layer, const Work *w, int64_t tokens)
{
    int64_t first, last;
    share(m->inner, &first, &last);
    Rows in = prepare(m, w, w->stream, layer->post_norm, tokens, m->hidden);
    shared_product(m->kind, &layer->gate, &in, tokens, w->one, 0);
    shared_product(m->kind, &layer->up, &in, tokens, w->other, 0);
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t at = t * m->inner + first;
        silu_times(w->one + at, w->other + at, last - first);
    }
#pragma omp barrier
    in = prepare(m, w, w->one, 0, tokens, m->inner);
    shared_product(m->kind, &layer->down, &in, tokens, w->stream, 1);
#pragma omp barrier
}

/* A token's row of the embedding. */
static void look_up(const Matrix *m, int64_t id, float *x)
{
    const int64_t size = m->inputs, at = id * size;
    const int8_t *whole = (const int8_t *)m->weight + at;
    if (!m->scale) memcpy(x, (const float *)m->weight + at, size * sizeof(float));
    else
        for (int64_t i = 0; i < size; i++) x[i] = whole[i] * m->scale[id];
}

static int in_range(const Model *m, const Cache *cache, int64_t tokens, const int64_t *ids,
                    const int64_t *positions, const int64_t *rows, int64_t count,
                    const int64_t *wanted)
{
    for (int64_t t = 0; t < tokens; t++) {
        if (ids[t] < 0 || ids[t] >= m->vocab) return 0;
        if (positions[t] < 0 || positions[t] >= cache->length) return 0;
        if (rows[t] < 0 || (rows[t] + 1) * cache->length > cache->slots) return 0;
    }
    for (int64_t i = 0; i < count; i++)
        if (wanted[i] < 0 || wanted[i] >= tokens) return 0;
    return count <= tokens;
}

/* Reads tokens that stand at `positions` of `rows` of the cache; those of a row follow each other.

   wanted: [count] places among the tokens; hidden: their states behind the final norm [count, d],
   or null; logits: [count, vocab], or null; memory: `miao_work_size` floats.
   Returns 0, or -1 where a number is out of its range, and nothing was done. */
int miao_read(const Model *m, const Cache *cache, int64_t tokens, const int64_t *ids,
              const int64_t *positions, const int64_t *rows, int64_t count, const int64_t *wanted,
              float *hidden, float *logits, float *memory, int64_t threads)
{
    const int64_t d = m->hidden;
    int is_apart = 1;
    if (!in_range(m, cache, tokens, ids, positions, rows, count, wanted)) return -1;
    for (int64_t t = 1; t < tokens; t++) is_apart &= rows[t] > rows[t - 1];
#pragma omp parallel num_threads(threads)
    {
        const int64_t step = omp_get_num_threads(), thread = omp_get_thread_num();
        Work w;
        lay_out(m, tokens, cache->length, threads, thread, memory, &w);
        w.is_apart = is_apart;
        for (int64_t t = thread; t < tokens; t += step)
            look_up(&m->embedding, ids[t], w.stream + t * d);
#pragma omp barrier
        for (int64_t number = 0; number < m->layers; number++) {
            attention(m, cache, number, &w, tokens, rows, positions);
            feed_forward(m, m->layer + number, &w, tokens);
        }
        for (int64_t i = thread; i < count; i += step)
            memcpy(w.one + i * d, w.stream + wanted[i] * d, d * sizeof(float));
#pragma omp barrier
        const Rows in = prepare(m, &w, w.one, m->norm, count, d);
        if (hidden)
            for (int64_t i = thread; i < count; i += step)
                memcpy(hidden + i * d, in.x + i * d, d * sizeof(float));
        if (logits) shared_product(m->kind, &m->head, &in, count, logits, 0);
    }
    return 0;
}
