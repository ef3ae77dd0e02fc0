import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.stream.Stream;

/** Runs Publish for each key that is given, some at a time. */
public class Many {
    public static void main(String[] keys) throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        var calls = Stream.of(keys).map(key -> (Callable<Void>) () -> {
            Publish.main(new String[] {key, "account.open", "{\"initial\": 100}"});
            return null;
        }).toList();
        for (var done : pool.invokeAll(calls)) done.get();
        pool.shutdown();
    }
}
