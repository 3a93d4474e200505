/* `gateway --make-key NAME`: a fresh API key, shown once, and its line for the keys file. */
#ifndef GATEWAY_MAKE_KEY_H
#define GATEWAY_MAKE_KEY_H

/* Returns the exit status. */
int make_key(const char *key_id);

#endif
