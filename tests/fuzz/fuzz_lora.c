/* Any tensors as a LoRA for a small model: refused in words, or every matrix fits its layer. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tensors.h"
#include "worker/engine/lora/lora_file.h"

static const struct adapter *adapters[3];
static struct module_table tables[LORA_PARTS];

static const struct lora_targets *small_model(void)
{
    static const struct unet_config config = {.blocks = 1, .layers_per_block = {1}};
    static struct lora_targets *targets;
    if (targets == NULL) {
        module_table_add(
            &tables[LORA_UNET], "mid_block.attentions.0.proj_in",
            &(struct module){
                .channels_in = 6, .channels_out = 4, .kernel = 1, .adapters = &adapters[0]});
        module_table_add(
            &tables[LORA_UNET], "conv_in",
            &(struct module){
                .channels_in = 3, .channels_out = 5, .kernel = 3, .adapters = &adapters[1]});
        module_table_add(
            &tables[LORA_TEXT_ENCODER], "text_model.encoder.layers.0.mlp.fc1",
            &(struct module){
                .channels_in = 8, .channels_out = 8, .kernel = 1, .adapters = &adapters[2]});
        targets = lora_targets_create(tables, &config);
    }
    return targets;
}

static void check(const struct lora_file *file, const struct lora_targets *targets)
{
    for (size_t i = 0; i < lora_file_count(file); i++) {
        const struct lora_change *change = lora_file_at(file, i);
        ASSERT(change->target < lora_targets_count(targets));
        ASSERT(change->part < LORA_PARTS);
        ASSERT(change->low.rank >= 1 && change->low.rank <= LORA_RANK_MAX);
    }
    (void)lora_file_metadata(file, "ss_network_alpha");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct fuzz_tensors file;
    struct lora_file *lora = NULL;
    if (!fuzz_tensors_open(&file, data, size)) {
        return -1;
    }
    if (lora_file_open(&lora, file.path, small_model(), &err) < 0) {
        ASSERT(lora == NULL && strstr(err.text, file.path) != NULL);
    } else {
        check(lora, small_model());
    }
    lora_file_close(lora);
    fuzz_tensors_close(&file);
    return 0;
}
