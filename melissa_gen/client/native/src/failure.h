/* Failures as a code with named values, and the sentence that follows from them. Codes, values and templates are those
 * of melissa_gen/protocol/failures.py. */
#ifndef MELISSA_GEN_FAILURE_H
#define MELISSA_GEN_FAILURE_H

#include <cJSON.h>
#include <stdint.h>

struct failure {
    const char *code;
    cJSON *values; /* an object, or NULL without memory */
};

/* Begins a failure. Add the values, then free it with failure_free(). */
struct failure failure_new(const char *code);
void failure_number(struct failure *failure, const char *name, double value);
void failure_text(struct failure *failure, const char *name, const char *text);
void failure_numbers(struct failure *failure, const char *name, int count, const int64_t *numbers);
/* Appends a text to the list `name`, which exists afterwards also if `text` is NULL. */
void failure_add_text(struct failure *failure, const char *name, const char *text);

/* The sentence, and the values as the text of a JSON object. Both return fresh memory, or NULL if there is none. */
char *failure_sentence(const struct failure *failure);
char *failure_json(const struct failure *failure);

void failure_free(struct failure *failure);

#endif
