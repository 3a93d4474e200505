/* The topic table as an operator needs it where topics are made by hand or by an operator's
 * operator. */
#include "deploy/admin/admin.h"

#include <stdio.h>

#include "common/base/panic.h"

int admin_topics(const struct admin *admin, struct error *err)
{
    size_t count = 0;
    struct topic_spec *specs = topics_list(admin->kafka, (const char *const *)admin->pools,
                                           admin->pool_count, admin->lanes, &count);
    (void)err;
    printf("topic\tpartitions\tcleanup.policy\tretention.ms\tretention.bytes\t"
           "max.message.bytes\n");
    for (size_t i = 0; i < count; i++) {
        const struct topic_policy *policy = topic_policy(specs[i].topic);
        printf("%s\t%d\t%s\t%lld\t%lld\t%lld\n", specs[i].name, specs[i].partitions,
               policy->cleanup_policy, (long long)policy->retention_ms,
               (long long)policy->retention_bytes, (long long)policy->message_bytes_max);
    }
    xfree(specs);
    return STATUS_OK;
}
