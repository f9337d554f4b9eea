/* C = alpha * op(A) * op(B) + beta * C, with A and B in bfloat16 and C in float, by columns: the one
 * BLAS function that vLLM for aarch64 needs and that torch from PyPI does not bring. */
#include <stdint.h>
#include <string.h>

static float widened(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

void sbgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k,
             const float *alpha, const uint16_t *a, const int *lda, const uint16_t *b,
             const int *ldb, const float *beta, float *c, const int *ldc) {
    const int plain_a = *trans_a == 'N' || *trans_a == 'n';
    const int plain_b = *trans_b == 'N' || *trans_b == 'n';
#pragma omp parallel for collapse(2)
    for (int column = 0; column < *n; column++)
        for (int row = 0; row < *m; row++) {
            float sum = 0;
            for (int i = 0; i < *k; i++)
                sum += widened(plain_a ? a[row + (int64_t)i * *lda] : a[i + (int64_t)row * *lda]) *
                       widened(plain_b ? b[i + (int64_t)column * *ldb] : b[column + (int64_t)i * *ldb]);
            float *out = c + row + (int64_t)column * *ldc;
            *out = *alpha * sum + (*beta == 0 ? 0 : *beta * *out);
        }
}
