// Threads compute while timers fire, compilers compile and the collector collects; a mapped file takes the answers.
import java.io.FileOutputStream;
import java.lang.management.ManagementFactory;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

public class Work {
    // The last blocks of each worker: old ones die all the time, so that the collector always has something to move.
    static final int WORKERS = 8, KEPT = 256, BLOCK = 16 << 10;
    static final byte[][][] kept = new byte[WORKERS][KEPT][];

    static void churn(int worker, int seed) {
        for (int round = 0; round < 2 * KEPT; round++) {
            byte[] block = new byte[BLOCK];
            Arrays.fill(block, (byte) (seed + round));
            kept[worker][round * 37 % KEPT] = block;
        }
    }

    static long hot(int seed) {
        var seen = new HashMap<Integer, String>();
        long value = seed;
        for (int round = 0; round < 100000; round++) {
            value = (value * 1103515245L + 12345L) & 0x7fffffffL;
            seen.put((int) (value % 2048), Long.toString(value));
        }
        double wave = 0;
        for (int round = 1; round < 20000; round++) {
            wave += Math.sin(round * 0.001) * Math.sqrt(round + seed);
        }
        long sum = Double.doubleToLongBits(wave);
        for (int key = 0; key < 2048; key++) {
            sum = sum * 31 + seen.getOrDefault(key, "").hashCode();
        }
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        var ticks = new AtomicInteger();
        var timer = Executors.newScheduledThreadPool(1);
        timer.scheduleAtFixedRate(ticks::incrementAndGet, 10, 10, TimeUnit.MILLISECONDS);
        var workers = Executors.newFixedThreadPool(WORKERS);
        var digest = MessageDigest.getInstance("SHA-256");
        long started = System.nanoTime();
        var child = new ProcessBuilder("sed", "-u", "s/^/child /").start();
        var answers = child.inputReader();
        var questions = child.outputWriter();
        try (var file = FileChannel.open(Path.of("mapped"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer mapped = file.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 16);
            for (int step = 0; step < 60; step++) {
                List<Future<Long>> sums = new ArrayList<>();
                for (int worker = 0; worker < WORKERS; worker++) {
                    int own = worker, seed = step * WORKERS + worker;
                    sums.add(workers.submit(() -> {
                        churn(own, seed);
                        return hot(seed);
                    }));
                }
                for (var sum : sums) {
                    mapped.putLong(sum.get());
                    questions.write(sum.get() + "\n");
                    questions.flush();
                    digest.update(answers.readLine().getBytes());
                }
                Thread.sleep(5);
                try (var progress = new FileOutputStream("progress", true)) {
                    progress.write('.');
                }
            }
            mapped.flip();
            digest.update(mapped);
        }
        questions.close();
        workers.shutdown();
        timer.shutdown();
        double seconds = (System.nanoTime() - started) / 1e9;
        System.out.println("digest " + HexFormat.of().formatHex(digest.digest()));
        for (byte[][] blocks : kept) {
            for (byte[] block : blocks) {
                digest.update(block);
            }
        }
        long collections = ManagementFactory.getGarbageCollectorMXBeans().stream().mapToLong(one -> one.getCollectionCount()).sum();
        System.out.println("heap " + HexFormat.of().formatHex(digest.digest()) + " collections " + (collections > 5));
        System.out.println("child " + child.waitFor() + " ticks " + (ticks.get() > 10) + " clock " + (seconds > 0 && seconds < 600));
    }
}
