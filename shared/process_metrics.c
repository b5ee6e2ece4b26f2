/* SPDX-License-Identifier: Apache-2.0 */
/* One look into /proc/self for each reading: see process_metrics.h. What cannot
 * be read is left out. */
#include "shared/process_metrics.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"

static void put(FILE *out, const char *name, const char *type, const char *help,
	double value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name,
		type, name, value);
}

unsigned process_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned open = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		open += entry->d_name[0] != '.';
	closedir(dir); /* it has counted itself */
	return open - 1;
}

static void put_descriptors(FILE *out)
{
	struct rlimit limit;
	unsigned open = process_open_fds();

	if (open)
		put(out, "process_open_fds", "gauge", "Open descriptors.",
			open);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		put(out, "process_max_fds", "gauge",
			"Descriptors that may be open.",
			(double)limit.rlim_cur);
}

static void put_cpu(FILE *out)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage) == 0)
		put(out, "process_cpu_seconds_total", "counter",
			"CPU time used.",
			(double)(usage.ru_utime.tv_sec +
				 usage.ru_stime.tv_sec) +
				(double)(usage.ru_utime.tv_usec +
					 usage.ru_stime.tv_usec) /
					1e6);
}

/* Field 22 of /proc/self/stat, in ticks since boot, and 24, in pages; behind
 * the name, which may hold blanks. */
static void put_stat(FILE *out)
{
	FILE *stat = fopen("/proc/self/stat", "re");
	unsigned long long start;
	long pages;
	struct timespec up, now;

	if (stat && fscanf(stat,
			    "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u"
			    " %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu %*u"
			    " %ld",
			    &start, &pages) == 2) {
		clock_gettime(CLOCK_BOOTTIME, &up);
		clock_gettime(CLOCK_REALTIME, &now);
		put(out, "process_start_time_seconds", "gauge",
			"When the process began (Unix time).",
			(double)(now.tv_sec - up.tv_sec) +
				(double)start / (double)sysconf(_SC_CLK_TCK));
		put(out, "process_resident_memory_bytes", "gauge",
			"Memory in RAM.",
			(double)pages * (double)sysconf(_SC_PAGESIZE));
	}
	if (stat)
		fclose(stat);
}

char *process_metrics_text(void)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return xstrdup("");
	put_descriptors(out);
	put_cpu(out);
	put_stat(out);
	fprintf(out, "# HELP peerway_build_info The version, as a label.\n"
		     "# TYPE peerway_build_info gauge\n"
		     "peerway_build_info{version=\"" PEERWAY_VERSION "\"} 1\n");
	fclose(out);
	return text;
}
