#include "worker/engine/layers/attention.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/attention.h"

void attention_load(struct attention *attention, struct loader *loader, const char *prefix,
                    const struct attention_options *options, const struct attention_names *names)
{
    static const struct attention_names diffusers = {"to_q", "to_k", "to_v", "to_out.0"};
    names = names != NULL ? names : &diffusers;
    int64_t channels = options->channels, context = options->context_channels;
    *attention = (struct attention){.options = *options};
    linear_load(&attention->to_q, loader, weight_name(prefix, "%s", names->q).text, channels,
                channels, options->bias);
    struct linear_options of_context = {.with_bias = options->bias,
                                        .is_sensitive = options->context_is_sensitive};
    linear_load_with(&attention->to_k, loader, weight_name(prefix, "%s", names->k).text, context,
                     channels, &of_context);
    linear_load_with(&attention->to_v, loader, weight_name(prefix, "%s", names->v).text, context,
                     channels, &of_context);
    linear_load(&attention->to_out, loader, weight_name(prefix, "%s", names->out).text, channels,
                channels, true);
}

struct attention_context attention_context_of(const struct attention *attention, struct exec *ex,
                                              struct tensor context, struct arena *arena)
{
    struct exec elsewhere = *ex;
    elsewhere.step = arena;
    struct attention_context result = {
        .k = linear_forward(&attention->to_k, &elsewhere, context),
        .v = linear_forward(&attention->to_v, &elsewhere, context),
    };
    ex->flop = elsewhere.flop;
    return result;
}

/* y += to_out(softmax(q k^T / sqrt(d)) v) */
static void attend(const struct attention *attention, struct exec *ex, struct tensor q,
                   const struct attention_context *context, struct tensor y)
{
    struct attention_shape shape = {
        .batch = q.shape[0],
        .heads = attention->options.heads,
        .head_size = attention->options.channels / attention->options.heads,
        .queries = q.shape[1],
        .keys = context->k.shape[1],
        .causal = attention->options.causal,
    };
    ASSERT(context->k.shape[0] == shape.batch);
    struct tensor h = tensor_like(ex->step, q, attention->options.channels);
    struct attention_arguments arguments = {
        .q = q.data, .k = context->k.data, .v = context->v.data, .y = h.data};
    arguments.workspace =
        arena_floats(ex->step, attention_workspace(&shape, parallel_threads(ex->pool)));
    struct profile_time began = profile_begin(ex->profile);
    struct profile_work work = {
        PROFILE_ATTENTION, attention_flop(&shape), {shape.queries, shape.keys, shape.head_size}};
    attention_run(ex->pool, &shape, &arguments);
    ex->flop += work.flop;
    profile_end(ex->profile, &began, &work);
    linear_add(&attention->to_out, ex, h, y);
}

void attention_self_add(const struct attention *attention, struct exec *ex, struct tensor x,
                        struct tensor y)
{
    ASSERT(x.rank == 3);
    size_t mark = arena_mark(ex->step);
    struct linear_input input = linear_input_of(&attention->to_q, ex, x);
    struct tensor q = linear_forward_input(&attention->to_q, ex, &input);
    struct attention_context own = {
        .k = linear_forward_input(&attention->to_k, ex, &input),
        .v = linear_forward_input(&attention->to_v, ex, &input),
    };
    attend(attention, ex, q, &own, y);
    arena_release(ex->step, mark);
}

void attention_cross_add(const struct attention *attention, struct exec *ex, struct tensor x,
                         const struct attention_context *context, struct tensor y)
{
    ASSERT(x.rank == 3);
    size_t mark = arena_mark(ex->step);
    struct tensor q = linear_forward(&attention->to_q, ex, x);
    attend(attention, ex, q, context, y);
    arena_release(ex->step, mark);
}
