/* The uploader: takes results from Kafka, puts each picture into the object store once, writes its
 * cache entry, and ends the job with SUCCEEDED when its last picture is stored.
 *
 * A record is committed only when Kafka has what followed from it. While the store is away or
 * refuses, records stay in hand and are tried again, for as long as it takes: /readyz says so, and
 * nothing is lost or committed. */
#ifndef UPLOADER_UPLOADER_H
#define UPLOADER_UPLOADER_H

#include "common/service/service.h"

int uploader_run(const struct service_context *context, struct error *err);

#endif
