# For awk programs of the benchmarks, which begin with it: awk "$(< scripts/bench-median.awk)"'...'
# The median of the numbers in a text. It sets middle to it, too, least and most, and spread: of these two, in percent of the median. All are 0 without numbers.
function median(text,   v, n, i, j, swap) {
    n = split(text, v, " ")
    for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (v[j] + 0 < v[i] + 0) { swap = v[i]; v[i] = v[j]; v[j] = swap }
    least = v[1] + 0
    most = v[n] + 0
    middle = n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] + 0 : (v[n / 2] + v[n / 2 + 1]) / 2
    spread = middle ? 100 * (most - least) / middle : 0
    return middle
}
