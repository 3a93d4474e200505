#include "worker/job_spans.h"

struct span *job_spans_begin(const struct record *record, const Crafterse__V1__Job *job)
{
    struct span *span = bus_span_process("process jobs", record, job->envelope);
    if (span != NULL) {
        span_set_text(span, "crafterse.pool", job->pool);
        span_set_text(span, "crafterse.model", job->generation->model);
        span_set_number(span, "crafterse.pictures", (int64_t)job->n_images);
    }
    return span;
}

struct span *job_spans_begin_picture(const struct span *job, size_t index,
                                     const struct drawer_request *request)
{
    struct span *span = tracing_begin_child("draw picture", SPAN_INTERNAL, job);
    span_set_number(span, "crafterse.picture", (int64_t)index);
    span_set_number(span, "crafterse.width", request->width);
    span_set_number(span, "crafterse.height", request->height);
    span_set_number(span, "crafterse.steps", request->steps);
    return span;
}

/* The drawer tells how long each stage took, not when it began: they follow one another. Returns
 * when this one ended. */
static uint64_t add_stage(const struct span *picture, const char *name, uint64_t start_ns,
                          double seconds)
{
    struct span *span = tracing_begin_child(name, SPAN_INTERNAL, picture);
    span_set_start(span, start_ns);
    tracing_end_after(span, seconds);
    return start_ns + (uint64_t)(seconds * 1e9);
}

void job_spans_end_picture(struct span *picture, const struct drawing *drawing)
{
    if (picture == NULL) {
        return;
    }
    uint64_t at_ns = picture->start_ns;
    at_ns = add_stage(picture, "encode text", at_ns, drawing->text_seconds);
    at_ns = add_stage(picture, "denoise", at_ns, drawing->denoise_seconds);
    at_ns = add_stage(picture, "decode latents", at_ns, drawing->decode_seconds);
    add_stage(picture, "encode PNG", at_ns, drawing->encode_seconds);
    span_set_number(picture, "crafterse.png_bytes", (int64_t)drawing->size);
    if (drawing->partial_steps > 0) {
        span_set_number(picture, "crafterse.partial_steps", drawing->partial_steps);
    }
    tracing_end(picture);
}
