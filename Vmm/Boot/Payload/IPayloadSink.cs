namespace Vmm.Boot.Payload;

/// <summary>Takes the bytes of an unpacked kernel, piece by piece.</summary>
internal interface IPayloadSink
{
    /// <summary>Takes <paramref name="bytes"/>, which are only valid during the call.</summary>
    /// <param name="position">Where they are in the unpacked payload: at the end of the piece before, or behind it. What is left out is zero.</param>
    /// <param name="bytes">A whole number of pages, unless it is the last piece.</param>
    void Write(int position, ReadOnlySpan<byte> bytes);
}
