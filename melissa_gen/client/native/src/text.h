/* Strings of any length in fresh memory, and UTF-8. */
#ifndef MELISSA_GEN_TEXT_H
#define MELISSA_GEN_TEXT_H

#include <stdarg.h>
#include <stddef.h>

/* printf into fresh memory; NULL if there is none. */
__attribute__((format(printf, 1, 2))) char *text_format(const char *format, ...);
char *text_format_list(const char *format, va_list values);

/* Copies a string; NULL if there is no memory. */
char *text_copy(const char *text);

/* Bytes of the first character of `size` bytes, or 0 if they don't start with valid UTF-8. */
size_t text_character(const unsigned char *bytes, size_t size);

#endif
