#include "worker/engine/pipeline/generate.h"

#include <string.h>

#include "common/base/clock.h"
#include "worker/engine/pipeline/conditioning.h"
#include "worker/engine/pipeline/decode.h"
#include "worker/engine/pipeline/denoise.h"
#include "worker/engine/pipeline/latents.h"

int generate(struct run *run, struct picture *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    double start = clock_monotonic_seconds();
    double flop = run->ex->flop;
    int result = conditioning_encode(run, err);
    if (result < 0 ||
        (result = run_check_finite(run, run->inputs.text, "the prompt's encoding", err)) < 0) {
        return result;
    }
    if (run->drops_text) {
        components_drop_text_encoders(run->components);
    }
    double text_done = clock_monotonic_seconds(), text_flop = run->ex->flop;
    conditioning_project(run);
    double project_flop = run->ex->flop;
    if (!run_go_on(run, ENGINE_STAGE_TEXT, 1, 1)) {
        return run_stopped(run, err);
    }
    if ((result = latents_prepare(run, err)) < 0 || (result = denoise(run, err)) < 0) {
        return result;
    }
    double denoise_done = clock_monotonic_seconds(), denoise_flop = run->ex->flop;
    result = decode(run, out, err);
    if (result < 0) {
        return result;
    }
    double decode_done = clock_monotonic_seconds();
    out->steps_done = run->steps_done;
    out->prompt_truncated = run->prompt_truncated;
    out->literal_form = run->literal_form;
    out->timings = (struct engine_timings){
        .text_seconds = text_done - start,
        .denoise_seconds = denoise_done - text_done,
        .decode_seconds = decode_done - denoise_done,
        .total_seconds = decode_done - start,
        .flop = run->ex->flop - flop,
        .text_flop = text_flop - flop,
        .denoise_flop = denoise_flop - project_flop,
        .decode_flop = run->ex->flop - denoise_flop,
    };
    return STATUS_OK;
}
