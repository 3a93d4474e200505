#include "worker/cli/stopwatch.h"

#include <inttypes.h>
#include <time.h>

#include "common/base/clock.h"

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void set_mark(struct stopwatch *watch)
{
    watch->last = clock_monotonic_seconds();
    watch->cpu_last = cpu_seconds();
}

void stopwatch_start(struct stopwatch *watch)
{
    *watch = (struct stopwatch){.started = clock_monotonic_seconds()};
}

void stopwatch_opened(struct stopwatch *watch)
{
    watch->open_seconds = clock_monotonic_seconds() - watch->started;
}

void stopwatch_begin(struct stopwatch *watch)
{
    set_mark(watch);
    watch->begun = watch->last;
    watch->cpu_begun = watch->cpu_last;
    watch->best_step = watch->best_step_cpu = 0;
}

static void mark_step(struct stopwatch *watch)
{
    double seconds = clock_monotonic_seconds() - watch->last, cpu = cpu_seconds() - watch->cpu_last;
    if (watch->best_step == 0 || seconds < watch->best_step) {
        watch->best_step = seconds;
    }
    if (watch->best_step_cpu == 0 || cpu < watch->best_step_cpu) {
        watch->best_step_cpu = cpu;
    }
}

void stopwatch_mark(struct stopwatch *watch, enum engine_stage stage, int step)
{
    if (stage == ENGINE_STAGE_TEXT) {
        watch->prompt_cpu_seconds = cpu_seconds() - watch->cpu_begun;
        if (watch->first_seconds == 0) {
            watch->first_seconds = clock_monotonic_seconds() - watch->started;
        }
    } else if (stage == ENGINE_STAGE_DENOISE && step > 0) {
        mark_step(watch);
    }
    if (stage != ENGINE_STAGE_DECODE || step == 0) {
        set_mark(watch);
    }
}

void stopwatch_generated(struct stopwatch *watch)
{
    watch->decode_cpu_seconds = cpu_seconds() - watch->cpu_last;
}

/* The most memory that the process ever had resident. Not getrusage's, which begins with what the
 * parent had when it started us. */
static long long peak_resident_bytes(void)
{
    char line[128];
    long long kibibytes = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status != NULL && kibibytes == 0 && fgets(line, sizeof(line), status) != NULL) {
        (void)sscanf(line, "VmHWM: %lld kB", &kibibytes);
    }
    if (status != NULL) {
        fclose(status);
    }
    return kibibytes * 1024;
}

void stopwatch_print(const struct stopwatch *watch, const struct picture *picture,
                     const struct generation *generation, FILE *to)
{
    const struct engine_timings *timings = &picture->timings;
    int steps = picture->steps_done > 0 ? picture->steps_done : generation->steps;
    fprintf(to, "{\"seed\":%" PRIu64 ",\"width\":%d,\"height\":%d,\"steps\":%d,", generation->seed,
            picture->width, picture->height, steps);
    fprintf(to, "\"open_seconds\":%.4f,\"first_unet_seconds\":%.4f,\"text_seconds\":%.4f,",
            watch->open_seconds, watch->first_seconds, timings->text_seconds);
    fprintf(to, "\"denoise_seconds\":%.4f,\"decode_seconds\":%.4f,\"total_seconds\":%.4f,",
            timings->denoise_seconds, timings->decode_seconds, timings->total_seconds);
    fprintf(to, "\"picture_seconds\":%.4f,\"step_seconds\":%.4f,\"best_step_seconds\":%.4f,",
            clock_monotonic_seconds() - watch->begun, timings->denoise_seconds / steps,
            watch->best_step);
    fprintf(to,
            "\"prompt_cpu_seconds\":%.4f,\"best_step_cpu_seconds\":%.4f,"
            "\"decode_cpu_seconds\":%.4f,",
            watch->prompt_cpu_seconds, watch->best_step_cpu, watch->decode_cpu_seconds);
    fprintf(to, "\"text_flop\":%.6g,\"denoise_flop\":%.6g,\"decode_flop\":%.6g,\"flop\":%.6g,",
            timings->text_flop, timings->denoise_flop, timings->decode_flop, timings->flop);
    fprintf(
        to, "\"gflop_per_second\":%.1f,\"activation_peak_bytes\":%zu,\"rss_peak_bytes\":%lld}\n",
        timings->flop / timings->total_seconds * 1e-9, timings->peak_bytes, peak_resident_bytes());
    fflush(to);
}
