/* What is wrong with a request, in the one shape that every error of the HTTP API has:
 *
 *   {"error": {"code": "invalid_request", "message": "...", "details": [
 *       {"field": "width", "problem": "513 is not a multiple of 8", "allowed": "64 to 1024"}]}}
 *
 * The code is stable and for programs; the message is for people. details is always there and may
 * be empty. */
#ifndef GATEWAY_PROBLEM_H
#define GATEWAY_PROBLEM_H

#include <stddef.h>

#define PROBLEMS_MAX 32 /* later ones are counted, not kept */

struct problem_detail {
    char field[64];
    char problem[256];
    char allowed[512]; /* "" when there is nothing to say */
};

struct problem_list {
    struct problem_detail details[PROBLEMS_MAX];
    size_t count; /* may pass PROBLEMS_MAX */
};

/* Adds one; the problem is a printf format, allowed a plain text (NULL = nothing to say). Text
 * from the client must have been made printable (problem_printable). */
void problem_add(struct problem_list *list, const char *field, const char *allowed,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* A short quotation of a client's text that is safe in a message: valid UTF-8, no control
 * characters, at most 40 characters and "..." when cut. */
#define PROBLEM_QUOTE_SIZE 192
const char *problem_printable(const char *text, size_t size, char out[PROBLEM_QUOTE_SIZE]);

/* The body as JSON text, owned by the caller (xfree). details may be NULL. */
char *problem_body(const char *code, const char *message, const struct problem_list *details);

#endif
